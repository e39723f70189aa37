"""Methods that the bench of networks on two devices compares, a row for each network."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from layoutsel.exits.training.data import load
from layoutsel.search.front import NoNetwork
from layoutsel.search.offload.comparisons import (
    INPUT_LEVELS,
    compressed_input,
    placements_of,
    with_random_channels,
)
from layoutsel.search.offload.projection import project
from layoutsel.search.offload.search import (
    CHECKPOINT,
    OffloadFound,
    OffloadSearch,
    search,
    sliced,
    supernet_task,
    teacher_in,
    train_teacher,
)
from layoutsel.search.offload.settings import (
    OffloadLimits,
    OffloadRecipe,
    RetrainedNetwork,
    RetrainTask,
)
from layoutsel.search.offload.slicing import OffloadChoice
from layoutsel.search.offload.spaces import handmade, handmade_choice
from layoutsel.search.offload.supernet_shape import SupernetShape
from layoutsel.search.offload.times import FIRST, SECOND
from layoutsel.search.offload.training import Training
from layoutsel.search.offload.transmitted import PRECISIONS as SIZES
from layoutsel.search.parts import parts_of
from layoutsel.search.space import Space

Row = dict[str, Any]
"""Figures of a network."""


def searched(
    method: str, question: OffloadSearch, folder: Path
) -> tuple[list[Row], list[OffloadFound]]:
    """Rows of a search."""
    folder.mkdir(parents=True, exist_ok=True)
    passes: list[float] = []
    found = list(search(question, folder, lambda report: passes.append(report.cpu_s)))
    rows = [
        {
            "method": method,
            "seed": question.seed,
            **accuracies(one.accuracies),
            "us": one.predicted.us,
            "bytes": sum(one.predicted.bytes.values()),
            "precision": one.projected.choice.precision,
            "first": sum(part.device == FIRST for part in one.network.parts),
            "parts": len(one.network.parts),
            "gap": one.projected.bound - one.projected.score,
            "cpu_s": sum(passes),
        }
        for one in found
    ]
    return rows, found


def accuracies(found: Any) -> Row:
    return {"tune": found["tune"], "test": found["test"]}


def budget(recipe: OffloadRecipe) -> OffloadRecipe:
    """As many passes for one network as a search takes for one."""
    passes = recipe.warm_epochs + recipe.retrain_epochs
    passes += 2 * sum(epochs for name, epochs, _ in recipe.phases if name != "warm")
    return replace(recipe, retrain_epochs=passes)


def trained(
    question: OffloadSearch, choice: OffloadChoice, folder: Path, name: str, **changes: Any
) -> RetrainedNetwork:
    """Train one network as the search in a folder trains those that it finds, and keep it there."""
    task = RetrainTask(
        space=question.space,
        choice=choice,
        checkpoint=None,
        teacher=teacher_in(folder, question),
        recipe=question.recipe,
        result=str(folder / f"{name}.pt"),
        seed=question.seed,
        threads=question.threads,
    )
    with Training(question.threads, question.limit_s) as training:
        return training.network(replace(task, **changes), lambda _report: None)


def handmade_rows(question: OffloadSearch, folder: Path) -> Iterator[Row]:
    """The hand-made network in its placements, and with inputs of one byte a point.

    It learns the answers of the search's teacher as well, a network of its own kind.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with Training(question.threads, question.limit_s) as training:
        train_teacher(question, training, folder)
    space, prices = question.space, question.prices
    architecture = handmade(space)
    data = load(space.data, question.seed)
    placed = [
        *placements_of(space, architecture, prices),
        compressed_input(space, architecture, prices, data.tune),
    ]
    recipe = budget(question.recipe)
    rounding = None if is_levelled(data.train.inputs) else INPUT_LEVELS
    found = {
        levels: trained(
            question,
            handmade_choice(space),
            folder,
            f"handmade-{levels}",
            recipe=recipe,
            input_levels=levels,
        )
        for levels in (None, rounding)
    }
    for one in placed:
        levels = rounding if one.name == "compressed input" else None
        yield {
            "method": f"hand-made, {one.name}",
            "seed": question.seed,
            **accuracies(found[levels].accuracies),
            "us": one.us,
            "bytes": one.bytes,
            "first": sum(device == FIRST for device in one.devices.values()),
            "parts": len(one.devices),
        }


def is_levelled(inputs: np.ndarray) -> bool:
    """True if inputs have the values of bytes already, as images have."""
    low, high = inputs.min(), inputs.max()
    scaled = (inputs - low) / (high - low) * (INPUT_LEVELS - 1)
    return bool(np.abs(scaled - np.round(scaled)).max() < 1e-3)


def channel_rows(question: OffloadSearch, chosen: OffloadFound, folder: Path) -> Iterator[Row]:
    """The chosen network with as many random channels, and with those of the largest weights."""
    choice, state = chosen.projected.choice, str(folder / CHECKPOINT)
    sent = {name: len(ones) for name, ones in chosen.network.sent.items()}
    variants = {
        "random channels": trained(
            question,
            with_random_channels(choice, question.space, question.seed),
            folder,
            "random-channels",
            checkpoint=state,
        ),
        "channels by magnitude": trained(
            question, choice, folder, "magnitudes", checkpoint=state, by_magnitude=True
        ),
    }
    for name, made in variants.items():
        network = sliced(question.space, made.choice)
        assert {name: len(ones) for name, ones in network.sent.items()} == sent
        predicted = question.prices.predict(network)
        yield {
            "method": name,
            "seed": question.seed,
            **accuracies(made.accuracies),
            "us": predicted.us,
            "bytes": sum(predicted.bytes.values()),
        }


def sequential_rows(question: OffloadSearch, chosen: OffloadFound, folder: Path) -> Iterator[Row]:
    """Operation selectors alone, then the best split that sends no more, channels by magnitude."""
    asked = replace(
        question,
        frozen=("resources", "channels", "position", "precision"),
        recipe=replace(question.recipe, time_weights=(0.0,)),
        precisions=("float32",),
    )
    shape = SupernetShape.of(question.space)
    times = question.prices.times(shape)
    task = supernet_task(asked, times, folder)
    with Training(question.threads, question.limit_s) as training:
        *_, state = training.supernet(task, lambda _report: None)
    architecture = project(shape, times, state, OffloadLimits()).choice.architecture
    choice = chosen.projected.choice
    most = sum(chosen.predicted.bytes.values())
    options = list(splits_within(question.space, architecture, choice.precision, most))
    if not options:
        return
    best = min(options, key=lambda one: question.prices.predict(sliced(question.space, one)).us)
    made = trained(
        question,
        best,
        folder,
        "magnitudes",
        checkpoint=str(folder / CHECKPOINT),
        by_magnitude=True,
    )
    predicted = question.prices.predict(sliced(question.space, made.choice))
    yield {
        "method": "architecture, then split, then channels",
        "seed": question.seed,
        **accuracies(made.accuracies),
        "us": predicted.us,
        "bytes": sum(predicted.bytes.values()),
    }


def splits_within(
    space: Space, architecture: Any, precision: str, most_bytes: float
) -> Iterator[OffloadChoice]:
    """Splits that send one tensor, with as many channels as the bytes allow."""
    graph = parts_of(space, architecture)
    names = [part.name for part in graph.parts]
    for cut in range(1, len(names)):
        first = set(names[:cut])
        sent = {t for part in graph.parts[cut:] for t in part.inputs if t in first}
        if len(sent) == 1:
            (tensor,) = sent
            channels, *axes = graph.shape(tensor)
            count = min(channels, int(most_bytes // (SIZES[precision] * np.prod(axes))))
            if count:
                devices = {name: FIRST if name in first else SECOND for name in names}
                kept = {tensor: tuple(range(count))}
                yield OffloadChoice(
                    architecture=architecture, devices=devices, kept=kept, precision=precision
                )


def limit_rows(question: OffloadSearch, chosen: OffloadFound, folder: Path) -> Iterator[Row]:
    """Limits that are kept by the projection, and broken by the most probable decisions."""
    shape = SupernetShape.of(question.space)
    times = question.prices.times(shape)
    with Training(question.threads, question.limit_s) as training:
        states = list(training.supernet(supernet_task(question, times, folder), lambda _r: None))
    for share in (0.5, 0.7, 0.9):
        limit = OffloadLimits(us=share * chosen.predicted.us)
        for state in states:
            argmax = project(shape, times, state, OffloadLimits())
            row = {"method": "limit", "seed": question.seed, "limit_us": limit.us}
            row["argmax_us"] = question.prices.predict(sliced(question.space, argmax.choice)).us
            try:
                found = project(shape, times, state, limit)
            except NoNetwork:
                yield {**row, "projected_us": None}
                continue
            yield {
                **row,
                "projected_us": question.prices.predict(sliced(question.space, found.choice)).us,
            }
