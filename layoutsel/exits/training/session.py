"""Training, evaluation and export in a child process; the only module there that is called.

:data:`layoutsel.exits.training.train.FUNCTION` names :func:`answer`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch

from layoutsel.exits.training.attach import MultiExit, attach
from layoutsel.exits.training.data import DataParts, LabelledSamples, load, source_of
from layoutsel.exits.training.export import export
from layoutsel.exits.training.networks import ResidualNetwork
from layoutsel.exits.training.recipe import logits_of, mixed_training
from layoutsel.exits.training.settings import (
    EpochReport,
    NetworkShape,
    TrainedNetwork,
    TrainingTask,
)

_REPORTED = ("tune", "test")
"""Parts of the data whose accuracy is reported; that for certificates is used for nothing else."""
_running: list[Iterator[EpochReport | TrainedNetwork]] = []
"""The present training as the only element."""


def answer(task: TrainingTask | None) -> EpochReport | TrainedNetwork | None:
    """Begin `task`, or go on with the present one, until its next report.

    Returns
    -------
    EpochReport or TrainedNetwork or None
        A pass over the data, or a network whose training has ended; None at the end of the task.
    """
    if task is not None:
        _running[:] = [_train(task)]
    return next(_running[0], None)


def _train(task: TrainingTask) -> Iterator[EpochReport | TrainedNetwork]:
    """Train the network with exits and then, if asked for, one network for each exit alone."""
    torch.set_num_threads(task.threads)
    parts = load(task.data, task.seed)
    shape = task.shape
    yield from _train_one("net", shape, task, parts)
    if task.static:
        cuts = (*map(shape.cut, range(len(shape.exits))), shape.without_exits())
        for index, cut in enumerate(cuts):
            yield from _train_one(f"static{index + 1}", cut, task, parts)


def _train_one(
    name: str, shape: NetworkShape, task: TrainingTask, parts: DataParts
) -> Iterator[EpochReport | TrainedNetwork]:
    source = source_of(task.data)
    torch.manual_seed(task.seed)
    inputs = _tensor(parts.train)
    backbone = ResidualNetwork(shape, source.input_shape, source.classes)
    model = attach(backbone, shape.places, inputs[:1], hidden=shape.hidden)
    # oneDNN trains convolutions faster in this layout.
    model = model.to(memory_format=torch.channels_last)
    labels = torch.from_numpy(parts.train.labels)
    reports = []
    for report in mixed_training(model, inputs, labels, task.recipe, name=name):
        reports.append(report)
        yield report
    yield TrainedNetwork(
        name=name,
        model=export(model, torch.from_numpy(parts.train.inputs[:1])),
        accuracies=_accuracies(model, parts),
        seconds=sum(report.seconds for report in reports),
        cpu_s=sum(report.cpu_s for report in reports),
    )


def _accuracies(model: MultiExit, parts: DataParts) -> Mapping[str, tuple[float, ...]]:
    """Accuracy of each exit, by name of a part of the data."""
    found = {}
    for name in _REPORTED:
        samples: LabelledSamples = getattr(parts, name)
        labels = torch.from_numpy(samples.labels)
        logits = logits_of(model, _tensor(samples))
        found[name] = tuple(float((one.argmax(1) == labels).double().mean()) for one in logits)
    return found


def _tensor(samples: LabelledSamples) -> torch.Tensor:
    return torch.from_numpy(samples.inputs).to(memory_format=torch.channels_last)
