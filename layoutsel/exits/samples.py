"""Samples for multi-exit networks: inputs and true classes from a file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from layoutsel.device.signature import Named
from layoutsel.documents.arrays import ArraysError, read_arrays
from layoutsel.exits.matrix import MatrixError
from layoutsel.references.calibration_inputs import CalibrationError, samples_of

LABELS = "labels"
"""Name of the array of true classes in a file of samples."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Samples:
    """N samples for a network."""

    inputs: tuple[list[np.ndarray], ...]
    """Arrays of each sample, in the order of the network's inputs."""
    labels: np.ndarray | None
    """True classes, (N,), int64; None if unknown."""

    def first(self, count: int | None) -> Samples:
        """Samples at the beginning; all of them if `count` is None."""
        labels = None if self.labels is None else self.labels[:count]
        return Samples(inputs=self.inputs[:count], labels=labels)


def read_samples(data: Path | str, inputs: Sequence[Named], classes: int) -> Samples:
    """Read samples and their labels.

    Parameters
    ----------
    data
        An ``.npz`` file with an array for each input, samples along the first axis, and optionally
        ``labels``, the true classes.
    inputs
        Inputs of the network.
    classes
        Number of classes.

    Raises
    ------
    MatrixError
        If the file is unreadable, or does not fit the network.
    """
    try:
        arrays = dict(read_arrays(data))
        labels = None if LABELS in [one.name for one in inputs] else arrays.pop(LABELS, None)
        found = samples_of(data, arrays, inputs)
    except (ArraysError, CalibrationError) as error:
        raise MatrixError(str(error)) from error
    if labels is not None:
        labels = _checked(labels, len(found), classes, data)
    return Samples(inputs=found, labels=labels)


def _checked(labels: np.ndarray, samples: int, classes: int, data: Path | str) -> np.ndarray:
    if labels.shape != (samples,) or labels.dtype.kind not in "iu":
        raise MatrixError(
            f"{data}: array {LABELS!r}: got {labels.dtype} of shape {labels.shape}; expected "
            f"integers of shape ({samples},)"
        )
    outside = (labels < 0) | (labels >= classes)
    if outside.any():
        row = int(outside.argmax())
        raise MatrixError(
            f"{data}: array {LABELS!r}: got {labels[row]} for sample {row}; expected classes from "
            f"0 to {classes - 1}"
        )
    return labels.astype(np.int64)
