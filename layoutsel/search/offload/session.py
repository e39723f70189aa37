"""Training of supernets and of sliced networks in a child process; see :func:`answer`."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from layoutsel import documents
from layoutsel.exits.training.data import load
from layoutsel.exits.training.recipe import shifted
from layoutsel.search.offload.bilevel import BilevelTraining, read_state, save_state, shift_of
from layoutsel.search.offload.distilling import Teacher
from layoutsel.search.offload.magnitudes import largest_channels
from layoutsel.search.offload.settings import (
    OffloadRecipe,
    RetrainedNetwork,
    RetrainTask,
    SearchReport,
    SelectorState,
    SupernetTask,
)
from layoutsel.search.offload.sliced_module import SlicedModule
from layoutsel.search.offload.slicing import OffloadChoice, slice_network
from layoutsel.search.offload.supernet import Supernet
from layoutsel.search.offload.supernet_shape import SupernetShape
from layoutsel.search.parts import parts_of

Message = SearchReport | SelectorState | RetrainedNetwork
"""Reports of a task."""
_running: list[Iterator[Message]] = []
"""The present task as the only element."""
_EVALUATION_BATCH = 512
"""Number of samples that are evaluated at once."""


def answer(task: SupernetTask | RetrainTask | None) -> Message | None:
    """Begin a task, or go on with the present one, until its next report; None at its end."""
    if task is not None:
        torch.set_num_threads(task.threads)
        _running[:] = [_search(task) if isinstance(task, SupernetTask) else _retrain(task)]
    return next(_running[0], None)


def _search(task: SupernetTask) -> Iterator[Message]:
    yield from BilevelTraining(task, load(task.space.data, task.seed)).run()


def _retrain(task: RetrainTask) -> Iterator[Message]:
    """Train a sliced network, then evaluate it, or yield the reports of an earlier training."""
    if task.result is not None and Path(task.result).exists():
        yield from _kept(task.result)
        return
    torch.manual_seed(task.seed)
    data = load(task.space.data, task.seed)
    module, choice = _module_of(task)
    inputs = {
        name: _levelled(torch.from_numpy(getattr(data, name).inputs), task.input_levels)
        for name in ("train", "tune", "test")
    }
    labels = {name: torch.from_numpy(getattr(data, name).labels) for name in inputs}
    reports = []
    training = train_module(
        module, inputs["train"], labels["train"], task.recipe, _teacher_of(task), phase=task.phase
    )
    for report in training:
        reports.append(asdict(report))
        yield report
    made = RetrainedNetwork(
        choice=choice,
        weights=module.folded(),
        steps=module.steps(),
        accuracies={
            name: float((logits_of(module, inputs[name]).argmax(1) == labels[name]).double().mean())
            for name in ("tune", "test")
        },
    )
    if task.result is not None:
        _keep(made, module, reports, task.result)
    yield made


def _module_of(task: RetrainTask) -> tuple[SlicedModule, OffloadChoice]:
    """Make the network of a task, and its choice with the channels that are sent."""
    graph, choice = parts_of(task.space, task.choice.architecture), task.choice
    supernet = None
    if task.checkpoint is not None:
        supernet = Supernet(SupernetShape.of(task.space))
        supernet.load_state_dict(read_state(task.checkpoint)["supernet"])
        if task.by_magnitude:
            choice = largest_channels(supernet, graph, choice)
    module = SlicedModule(slice_network(graph, choice))
    if supernet is not None:
        module.inherit(supernet)
    return module, choice


def _teacher_of(task: RetrainTask) -> Teacher | None:
    """Read the teacher of a task."""
    if task.teacher is None:
        return None
    saved = read_state(task.teacher)
    choice = _choice_in(saved, task.teacher)
    module = SlicedModule(slice_network(parts_of(task.space, choice.architecture), choice))
    module.load_state_dict(saved["module"])
    return Teacher(
        network=module,
        weight=task.recipe.teacher_weight,
        temperature=task.recipe.teacher_temperature,
    )


def _keep(
    made: RetrainedNetwork, module: SlicedModule, reports: list[dict[str, Any]], file: str
) -> None:
    """Save a trained network."""
    weights = {name: [torch.tensor(one) for one in ones] for name, ones in made.weights.items()}
    state = {
        "choice": documents.as_text(made.choice),
        "module": module.state_dict(),
        "weights": weights,
        "steps": dict(made.steps),
        "accuracies": dict(made.accuracies),
        "reports": reports,
    }
    save_state(state, file)


def _kept(file: str) -> Iterator[Message]:
    """Read the reports and the network of an earlier training."""
    saved = read_state(file)
    yield from (SearchReport(**report) for report in saved["reports"])
    weights = {
        name: tuple(one.numpy() for one in tensors) for name, tensors in saved["weights"].items()
    }
    yield RetrainedNetwork(
        choice=_choice_in(saved, file),
        weights=weights,
        steps=saved["steps"],
        accuracies=saved["accuracies"],
    )


def _choice_in(saved: dict[str, Any], file: str) -> OffloadChoice:
    return OffloadChoice.read(documents.parse_json(saved["choice"], file), file=file)


def train_module(
    module: SlicedModule,
    inputs: Tensor,
    labels: Tensor,
    recipe: OffloadRecipe,
    teacher: Teacher | None = None,
    *,
    phase: str = "retrain",
) -> Iterator[SearchReport]:
    """Train a network in place, and report each pass."""
    steps = recipe.retrain_epochs * -(-len(inputs) // recipe.batch)
    optimizer = torch.optim.AdamW(
        module.parameters(), lr=recipe.rate, weight_decay=recipe.weight_decay
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=recipe.rate, total_steps=steps)
    for epoch in range(1, recipe.retrain_epochs + 1):
        start, cpu = time.perf_counter(), time.process_time()
        total = 0.0
        module.train()
        for chosen in torch.randperm(len(inputs)).split(recipe.batch):
            moved = shifted(inputs[chosen], shift_of(inputs))
            logits = module(moved)
            if teacher is None:
                loss = functional.cross_entropy(logits, labels[chosen])
            else:
                loss = teacher.loss(logits, labels[chosen], teacher.answers(moved))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total += loss.item() * len(chosen)
        yield SearchReport(
            phase=phase,
            epoch=epoch,
            epochs=recipe.retrain_epochs,
            loss=total / len(inputs),
            seconds=time.perf_counter() - start,
            cpu_s=time.process_time() - cpu,
        )


def logits_of(module: torch.nn.Module, inputs: Tensor) -> Tensor:
    """Logits of all inputs, (N, classes)."""
    module.eval()
    with torch.no_grad():
        return torch.cat([module(chunk) for chunk in inputs.split(_EVALUATION_BATCH)])


def _levelled(inputs: Tensor, levels: int | None) -> Tensor:
    """Round inputs to equally spaced values between the extremes."""
    if levels is None:
        return inputs
    low, high = inputs.amin(), inputs.amax()
    step = (high - low) / (levels - 1)
    return torch.round((inputs - low) / step) * step + low
