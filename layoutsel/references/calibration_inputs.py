"""Calibration inputs: an ``.npz`` file with one array of many samples per input."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from layoutsel.device.signature import Named, signatures
from layoutsel.documents.arrays import ArraysError, read_arrays
from layoutsel.errors import InputError
from layoutsel.runtime.binding import bind
from tvm_passes.errors import LayoutselError


class CalibrationError(LayoutselError):
    """A file of calibration inputs that is unreadable or does not fit the model."""


def read_calibration(file: Path | str, inputs: Sequence[Named]) -> tuple[list[np.ndarray], ...]:
    """Read the samples of a file, each a list of arrays in the order of the model's inputs.

    Samples are concatenated along the first axis. For an input of shape (2, 3, 8, 8), twenty
    samples are an array of shape (40, 3, 8, 8). For a scalar, they are one of shape (20,).

    Parameters
    ----------
    file
        An ``.npz`` file with an array for each input, by name.
    inputs
        Inputs of the model, in order.

    Raises
    ------
    CalibrationError
        Names the first fault.
    """
    try:
        arrays = read_arrays(file)
    except ArraysError as error:
        raise CalibrationError(str(error)) from error
    return samples_of(file, arrays, inputs)


def samples_of(
    file: Path | str, arrays: Mapping[str, np.ndarray], inputs: Sequence[Named]
) -> tuple[list[np.ndarray], ...]:
    """Split the arrays of a file as :func:`read_calibration` does."""
    names = [spec.name for spec in inputs]
    for name in arrays:
        if name not in names:
            raise CalibrationError(
                f"{file}: array {name!r} is no input of the model, which takes {', '.join(names)}"
            )
    parts = {spec.name: _samples(file, arrays, spec) for spec in inputs}
    counts = {name: len(samples) for name, samples in parts.items()}
    if len(set(counts.values())) > 1:
        stated = ", ".join(f"{count} of {name!r}" for name, count in counts.items())
        raise CalibrationError(f"{file}: got samples {stated}; expected equal numbers")
    samples = tuple(list(sample) for sample in zip(*parts.values(), strict=True))
    for number, sample in enumerate(samples):
        try:
            bind(signatures(inputs), sample, {})
        except InputError as error:
            raise CalibrationError(f"{file}: sample {number}: {error}") from error
    return samples


def _samples(file: Path | str, arrays: Mapping[str, np.ndarray], spec: Named) -> np.ndarray:
    """Samples of one input, stacked along a new first axis."""
    if spec.name not in arrays:
        raise CalibrationError(
            f"{file}: no array for the input {spec.name!r}: got {', '.join(arrays) or 'none'}"
        )
    array, (batch, *rest) = arrays[spec.name], spec.shape or (1,)
    fits = array.ndim > 0 and array.shape[1:] == tuple(rest) and batch > 0
    if not fits or not len(array) or len(array) % batch or str(array.dtype) != spec.dtype:
        wanted = ", ".join(map(str, (f"{batch}·N", *rest)))
        raise CalibrationError(
            f"{file}: array {spec.name!r}: got {array.dtype} of shape {array.shape}; "
            f"expected {spec.dtype} of shape ({wanted}), N samples"
        )
    return np.ascontiguousarray(array).reshape(-1, *spec.shape)
