"""Training of a multi-exit network in a child process, with limits of time and memory."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import onnx

from layoutsel import documents
from layoutsel.core.files import check_output, make_folder, replacing
from layoutsel.device.training import TrainingProcess, check_torch
from layoutsel.exits.spec import FORMAT, Exit, ExitSpec
from layoutsel.exits.training.data import DataParts, load
from layoutsel.exits.training.settings import (
    INPUT,
    EpochReport,
    TrainedNetwork,
    TrainingTask,
)

FUNCTION = "layoutsel.exits.training.session:answer"
"""Function of the child process."""
TIME_LIMIT_S = 1800.0
"""Default time limit of the training, seconds."""
MEMORY_BYTES = 4 << 30
"""Memory limit of the child process."""
REPORT = "training.json"
"""File of the report in the folder of a training."""
DATA_FILES = ("tune", "certify", "test")
"""Parts of the data that are written, each to a file of its name."""


@dataclass(frozen=True, kw_only=True)
class NetworkReport:
    """A trained network."""

    file: str
    """Name of its ONNX file."""
    tune_accuracies: tuple[float, ...]
    """Accuracy of each exit on the samples to tune with."""
    test_accuracies: tuple[float, ...]
    """Accuracy of each exit on the samples for reports."""
    seconds: float
    """Wall time of the training, seconds."""
    cpu_s: float
    """Processor time of the training, seconds."""


@dataclass(frozen=True, kw_only=True)
class TrainingReport:
    """Networks of a training; the document :data:`REPORT`."""

    data: str
    """Name of the data set."""
    size: str
    """Size of the network."""
    seed: int
    """Seed of the data's parts, the weights and the order of samples."""
    networks: tuple[NetworkReport, ...]
    """The network with exits, then those that end at each of its exits and were trained alone."""


def train(
    task: TrainingTask,
    folder: Path,
    *,
    limit_s: float = TIME_LIMIT_S,
    memory_bytes: int = MEMORY_BYTES,
    progress: Callable[[EpochReport], None] = lambda _report: None,
) -> TrainingReport:
    """Train a multi-exit network, and write it with data to observe, certify and test it.

    The folder receives ``net.onnx`` with its specification, ``tune.npz``, ``certify.npz`` and
    ``test.npz`` with the arrays ``x`` and ``labels``, ``training.jsonl`` with a line for each pass
    over the data, and ``training.json`` with the report. Networks of single exits, if asked for,
    are ``static1.onnx``, ``static2.onnx``, ….

    Parameters
    ----------
    task
        Data set, network and settings.
    folder
        Folder to write to; it is created.
    limit_s
        Time limit, seconds.
    memory_bytes
        Memory limit of the child process.
    progress
        Receives a report about each pass over the data.

    Raises
    ------
    TrainingFailed
        If PyTorch is missing, or the training fails or takes too long.
    """
    check_torch()
    parts = load(task.data, task.seed)
    log = folder / "training.jsonl"
    make_folder(folder)
    check_output(log)
    networks = []
    training = TrainingProcess(
        FUNCTION,
        threads=task.threads,
        limit_s=limit_s,
        memory_bytes=memory_bytes,
        advice="allow more time, or choose a smaller network",
    )
    with training, log.open("w") as lines:
        for report in training.reports(task):
            if isinstance(report, EpochReport):
                print(json.dumps(asdict(report)), file=lines, flush=True)
                progress(report)
            else:
                networks.append(_write_network(report, folder))
    _write_data(parts, folder)
    made = TrainingReport(data=task.data, size=task.size, seed=task.seed, networks=tuple(networks))
    documents.save(made, folder / REPORT)
    return made


def _write_network(trained: TrainedNetwork, folder: Path) -> NetworkReport:
    """Write a network as ONNX; one with exits holds its specification."""
    model = onnx.load_from_string(trained.model)
    outputs = [output.name for output in model.graph.output]
    if len(outputs) > 1:
        exits = tuple(Exit(name=name, output=name, is_probability=False) for name in outputs)
        ExitSpec(format=FORMAT, model_hash="", exits=exits).embed(model)
    file = f"{trained.name}.onnx"
    with replacing(folder / file) as stream:
        stream.write(model.SerializeToString())
    return NetworkReport(
        file=file,
        tune_accuracies=trained.accuracies["tune"],
        test_accuracies=trained.accuracies["test"],
        seconds=trained.seconds,
        cpu_s=trained.cpu_s,
    )


def _write_data(parts: DataParts, folder: Path) -> None:
    for name in DATA_FILES:
        samples = getattr(parts, name)
        with replacing(folder / f"{name}.npz") as stream:
            np.savez_compressed(stream, **{INPUT: samples.inputs, "labels": samples.labels})
