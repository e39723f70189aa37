"""Training of common weights and of single networks in a child process.

:data:`layoutsel.search.joint.trainer.FUNCTION` names :func:`answer`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional

from layoutsel.core.files import replacing
from layoutsel.exits.training.data import LabelledSamples, load
from layoutsel.search.early_exits import with_exits
from layoutsel.search.joint.shared_network import CALIBRATION, SharedNetwork, accuracies
from layoutsel.search.joint.tasks import (
    Answer,
    Evaluation,
    Message,
    Pass,
    Retrained,
    Retraining,
    SharedTraining,
    TrainingSchedule,
)
from layoutsel.search.parts import PartGraph, parts_of
from tvm_passes.errors import LayoutselError

_REPORTED = ("tune", "test")
"""Parts of the data whose accuracy is reported of a network after its own training."""


@dataclass
class _Session:
    """State of the child process."""

    task: SharedTraining
    """Space and settings."""
    train: tuple[torch.Tensor, torch.Tensor]
    """Inputs and classes to train with."""
    parts: dict[str, tuple[torch.Tensor, torch.Tensor]]
    """Inputs and classes by part of the data."""
    model: SharedNetwork
    """Common weights."""

    @classmethod
    def begin(cls, task: SharedTraining) -> _Session:
        """Load the data and make the weights."""
        torch.set_num_threads(task.threads)
        data = load(task.space.data, task.seed)
        torch.manual_seed(task.seed)
        return cls(
            task=task,
            train=_tensors(data.train),
            parts={name: _tensors(getattr(data, name)) for name in _REPORTED},
            model=SharedNetwork.of_space(task.space),
        )

    def shared(self) -> Iterator[Pass]:
        """Train the common weights: each step samples networks uniformly."""
        draws = np.random.default_rng(self.task.seed)

        def networks() -> list[PartGraph]:
            space = self.task.space
            return [parts_of(space, space.draw(draws)) for _ in range(self.task.schedule.networks)]

        training = _Training(self.model, self.task.schedule, self.train, networks)
        file = Path(self.task.checkpoint)
        if file.exists():
            draws.bit_generator.state = training.restore(file)
        while training.epoch < training.schedule.epochs:
            made = training.run("shared")
            training.save(file, draws.bit_generator.state)
            yield made

    def accuracies(self, question: Evaluation) -> tuple[float, ...]:
        """Validation accuracy of networks, each with its own statistics of normalisation."""
        found = []
        for architecture in question.architectures:
            graph = parts_of(self.task.space, architecture)
            self.model.calibrate(graph, self.train[0][:CALIBRATION])
            found.append(accuracies(self.model, graph, *self.parts["tune"])[-1])
        return tuple(found)

    def retrain(self, task: Retraining) -> Iterator[Pass | Retrained]:
        """Train one network from its common weights, with its early exits."""
        graph = with_exits(parts_of(self.task.space, task.architecture), task.exits)
        torch.manual_seed(self.task.seed)
        model = SharedNetwork.of_network(graph)
        model.inherit(self.model)
        training = _Training(model, task.schedule, self.train, lambda: [graph])
        cpu_s = 0.0
        while training.epoch < task.schedule.epochs:
            made = training.run(task.name)
            cpu_s += made.cpu_s
            yield made
        found = {name: accuracies(model, graph, *one) for name, one in self.parts.items()}
        yield Retrained(
            weights=model.weights(graph),
            accuracies={name: made[-1] for name, made in found.items()},
            exits={name: made[:-1] for name, made in found.items()},
            cpu_s=cpu_s,
        )


class _Training:
    """Optimiser and schedule of one training.

    Parameters
    ----------
    model
        Weights to train in place.
    schedule
        Settings.
    samples
        Inputs and classes.
    networks
        Function that draws the networks of a step.
    """

    def __init__(
        self,
        model: SharedNetwork,
        schedule: TrainingSchedule,
        samples: tuple[torch.Tensor, torch.Tensor],
        networks: Callable[[], Sequence[PartGraph]],
    ) -> None:
        self.schedule, self.epoch = schedule, 0
        self._model, self._samples, self._networks = model, samples, networks
        self._optimizer = torch.optim.AdamW(
            model.parameters(), lr=schedule.rate, weight_decay=schedule.weight_decay
        )
        steps = max(1, schedule.epochs * -(-len(samples[1]) // schedule.batch))
        self._rates = torch.optim.lr_scheduler.OneCycleLR(
            self._optimizer, max_lr=schedule.rate, total_steps=steps
        )

    def run(self, name: str) -> Pass:
        """Train for one pass over the samples."""
        start, cpu, total = time.perf_counter(), time.process_time(), 0.0
        inputs, labels = self._samples
        self._model.train()
        for chosen in torch.randperm(len(labels)).split(self.schedule.batch):
            self._optimizer.zero_grad()
            graphs = self._networks()
            for graph in graphs:
                heads = self._model(inputs[chosen], graph)
                losses = [functional.cross_entropy(logits, labels[chosen]) for logits in heads]
                loss = torch.stack(losses).sum()
                (loss / len(graphs)).backward()
                total += loss.item() * len(chosen) / len(graphs)
            self._optimizer.step()
            self._rates.step()
        self.epoch += 1
        return Pass(
            network=name,
            epoch=self.epoch,
            epochs=self.schedule.epochs,
            loss=total / len(labels),
            seconds=time.perf_counter() - start,
            cpu_s=time.process_time() - cpu,
        )

    def save(self, file: Path, draws: object) -> None:
        """Write the state of the training."""
        state = {
            "epoch": self.epoch,
            "model": self._model.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "rates": self._rates.state_dict(),
            "order": torch.get_rng_state(),
            "draws": draws,
        }
        with replacing(file) as stream:
            torch.save(state, stream)

    def restore(self, file: Path) -> dict[str, object]:
        """Read the state of the training; returns that of the draws of networks."""
        try:
            state = torch.load(file, weights_only=True)
            self._model.load_state_dict(state["model"])
            self._optimizer.load_state_dict(state["optimizer"])
            self._rates.load_state_dict(state["rates"])
            torch.set_rng_state(state["order"])
            self.epoch = int(state["epoch"])
            draws: dict[str, object] = state["draws"]
        except Exception as error:  # torch raises many kinds for a damaged or another file
            raise LayoutselError(
                f"{file}: not the weights of this search ({type(error).__name__}): delete the "
                "file to train them again"
            ) from error
        return draws


def _tensors(samples: LabelledSamples) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.from_numpy(samples.inputs), torch.from_numpy(samples.labels)


_session: list[_Session] = []
"""The session as the only element."""
_running: list[Iterator[Answer]] = []
"""The present training as the only element."""


def answer(message: Message) -> Answer:
    """Begin a task, or go on with the present one, until its next report.

    Returns
    -------
    Pass or Retrained or tuple of float or None
        A pass over the data, a trained network, or accuracies; None at the end of a training.
    """
    if isinstance(message, SharedTraining):
        _session[:] = [_Session.begin(message)]
        _running[:] = [_session[0].shared()]
    elif isinstance(message, Retraining):
        _running[:] = [_session[0].retrain(message)]
    elif isinstance(message, Evaluation):
        return _session[0].accuracies(message)
    return next(_running[0], None)
