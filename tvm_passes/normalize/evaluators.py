"""Numpy evaluators of operators with attributes; the table of operators refers to them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal

import numpy as np
import tvm
from tvm.ir import Call

from tvm_passes.arrays import own_pages
from tvm_passes.normalize._expressions import dtype_of, integers, shape_of
from tvm_passes.operators.entry import Evaluator

_FEW = 16
"""Maximum number of elements of a constant that no unit treats as a weight."""

_STRIP = 128
"""Rows of a matrix that are transposed in one step."""


def _result_shape(call: Call) -> tuple[int, ...]:
    shape = shape_of(call)
    assert shape is not None, "checked before evaluating"
    return shape


def shaped(call: Call, arrays: list[np.ndarray]) -> np.ndarray:
    """Return the same elements in the shape of the result."""
    return arrays[0].reshape(_result_shape(call))


def transposed(call: Call, arrays: list[np.ndarray]) -> np.ndarray:
    """Return the same elements with their axes in another order."""
    axes = call.attrs.axes
    if arrays[0].ndim == 2 and (axes is None or [int(axis) for axis in axes] == [1, 0]):
        return _transposed_matrix(arrays[0])
    return np.transpose(arrays[0], None if axes is None else [int(axis) for axis in axes])


def _transposed_matrix(matrix: np.ndarray) -> np.ndarray:
    """Transpose in strips: three times as fast as numpy for weights of hundreds of megabytes."""
    result = own_pages(matrix.shape[::-1], matrix.dtype)
    for start in range(0, matrix.shape[0], _STRIP):
        result[:, start : start + _STRIP] = matrix[start : start + _STRIP].T
    return result


def _reducer(function: Callable[..., np.ndarray]) -> Evaluator:
    """Make the evaluator of a reduction from numpy's function."""

    def evaluate(call: Call, arrays: list[np.ndarray]) -> np.ndarray:
        axis = call.attrs.axis
        axes = None if axis is None else tuple(int(a) for a in axis)
        return function(arrays[0], axis=axes, keepdims=bool(call.attrs.keepdims))

    return evaluate


def broadcast(call: Call, arrays: list[np.ndarray]) -> np.ndarray:
    """Repeat the operand along axes of size 1."""
    return np.broadcast_to(arrays[0], _result_shape(call))


def taken(call: Call, arrays: list[np.ndarray]) -> np.ndarray:
    """Take slices at indices along an axis."""
    modes: Mapping[str, Literal["clip", "wrap"]] = {"clip": "clip", "wrap": "wrap"}
    axis = None if call.attrs.axis is None else int(call.attrs.axis)
    mode = modes.get(str(call.attrs.mode))
    return np.take(arrays[0], arrays[1], axis=axis, mode=mode or "raise")


def sliced(call: Call, arrays: list[np.ndarray]) -> np.ndarray:
    """Take a part of the operand, with a step along each axis."""
    axes, begins, ends = (integers(resolved_argument) for resolved_argument in call.args[1:4])
    strides = integers(call.args[4]) if len(call.args) > 4 else (1,) * len(axes or ())
    if axes is None or begins is None or ends is None or strides is None:
        raise NotImplementedError
    index = [slice(None)] * arrays[0].ndim
    for axis, begin, end, stride in zip(axes, begins, ends, strides, strict=True):
        if stride < 0:
            raise NotImplementedError
        index[axis] = slice(begin, end, stride)
    return arrays[0][tuple(index)]


def parts(call: Call, arrays: list[np.ndarray]) -> list[np.ndarray]:
    """Split the operand along an axis."""
    sections = call.attrs.indices_or_sections
    cuts = int(sections) if isinstance(sections, tvm.tirx.IntImm) else [int(s) for s in sections]
    return np.split(arrays[0], cuts, axis=int(call.attrs.axis))


def filled(call: Call, arrays: list[np.ndarray]) -> np.ndarray:
    """Make a tensor of one value."""
    return np.full(_result_shape(call), arrays[0])


def dequantized_constant(call: Call, arrays: list[np.ndarray]) -> np.ndarray:
    """Dequantise a vector or a small constant.

    Matrices and filters stay integers, for units that multiply integers.
    """
    array, scale, zero_point = arrays
    is_matrix = array.size > _FEW and sum(size > 1 for size in array.shape) > 1
    if array.dtype.itemsize == 1 and is_matrix:
        raise NotImplementedError
    return dequantized(array, scale, zero_point, int(call.attrs.axis))


def dequantized(
    array: np.ndarray, scale: np.ndarray, zero_point: np.ndarray, axis: int
) -> np.ndarray:
    """Compute the real numbers that integers represent.

    If there are several scales and zero points, they vary along `axis`.
    """
    shape = [1] * array.ndim
    if max(scale.size, zero_point.size) > 1:
        shape[axis] = max(scale.size, zero_point.size)
    scale, zero_point = (a.reshape(shape if a.size > 1 else ()) for a in (scale, zero_point))
    return (array.astype("int32") - zero_point).astype("float32") * scale


def clipped(call: Call, arrays: list[np.ndarray]) -> np.ndarray:
    """Limit the operand to an interval."""
    low, high = (argument.value for argument in call.args[1:3])
    return np.clip(arrays[0], low, high)


def cumulative_sum(call: Call, arrays: list[np.ndarray]) -> np.ndarray:
    """Compute the running sum along an axis."""
    if call.attrs.exclusive:
        raise NotImplementedError
    axis = None if call.attrs.axis is None else int(call.attrs.axis)
    return np.cumsum(arrays[0], axis=axis, dtype=dtype_of(call))


def batch_normalized(call: Call, arrays: list[np.ndarray]) -> list[np.ndarray]:
    """Normalise by the given statistics or, in training mode, by those of the data.

    Exporters express weight standardisation as batch normalisation in training mode.
    """
    data, gamma, beta, mean, variance = arrays
    attrs = call.attrs
    axis, momentum = int(attrs.axis) % data.ndim, float(attrs.momentum)
    shape = [size if place == axis else 1 for place, size in enumerate(data.shape)]
    used = mean, variance
    if attrs.training:
        others = tuple(place for place in range(data.ndim) if place != axis)
        used = data.mean(others), data.var(others)
        old_and_new = zip((mean, variance), used, strict=True)
        mean, variance = (old * (1 - momentum) + new * momentum for old, new in old_and_new)
    center, spread = (statistic.reshape(shape) for statistic in used)
    value = (data - center) / np.sqrt(spread + data.dtype.type(attrs.epsilon))
    value = value * gamma.reshape(shape) if attrs.scale else value
    value = value + beta.reshape(shape) if attrs.center else value
    return [part.astype(data.dtype, copy=False) for part in (value, mean, variance)]


def cast(call: Call, arrays: list[np.ndarray]) -> np.ndarray:
    """Convert the operand to another element type."""
    return arrays[0].astype(dtype_of(call))


def concatenated(call: Call, arrays: list[np.ndarray]) -> np.ndarray:
    """Join the operands along an axis."""
    return np.concatenate(arrays, axis=int(call.attrs.axis or 0))


def stacked(call: Call, arrays: list[np.ndarray]) -> np.ndarray:
    """Join the operands along a new axis."""
    return np.stack(arrays, axis=int(call.attrs.axis))


def tiled(call: Call, arrays: list[np.ndarray]) -> np.ndarray:
    """Repeat the operand along its axes."""
    return np.tile(arrays[0], [int(repeat) for repeat in call.attrs.repeats])


def zeros(call: Call, _arrays: list[np.ndarray]) -> np.ndarray:
    """Make a tensor of zeros."""
    return np.zeros(_result_shape(call), dtype_of(call))


def ones(call: Call, _arrays: list[np.ndarray]) -> np.ndarray:
    """Make a tensor of ones."""
    return np.ones(_result_shape(call), dtype_of(call))


deviation = _reducer(np.std)
"""Standard deviation over some axes."""
maximum = _reducer(np.max)
"""Maximum over some axes."""
mean = _reducer(np.mean)
"""Mean over some axes."""
minimum = _reducer(np.min)
"""Minimum over some axes."""
product = _reducer(np.prod)
"""Product over some axes."""
total = _reducer(np.sum)
"""Sum over some axes."""
variance = _reducer(np.var)
"""Variance over some axes."""
