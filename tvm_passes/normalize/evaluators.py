"""Values of operators of constants, in numpy."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import erf
from typing import Literal

import numpy as np
import tvm
from tvm.ir import Call

from tvm_passes.arrays import own_pages
from tvm_passes.normalize._expressions import dtype_of, integers, shape_of

_FEW = 16
"""Elements of a constant that is no weight to any unit."""

_STRIP = 128
"""Rows of a matrix that are transposed at a time."""

Evaluator = Callable[[Call, list[np.ndarray]], "np.ndarray | list[np.ndarray]"]


def _result_shape(call: Call) -> tuple[int, ...]:
    shape = shape_of(call)
    assert shape is not None, "checked before evaluating"
    return shape


def _shaped(call: Call, arrays: list[np.ndarray]) -> np.ndarray:
    return arrays[0].reshape(_result_shape(call))


def _transposed(call: Call, arrays: list[np.ndarray]) -> np.ndarray:
    axes = call.attrs.axes
    if arrays[0].ndim == 2 and (axes is None or [int(axis) for axis in axes] == [1, 0]):
        return _transposed_matrix(arrays[0])
    return np.transpose(arrays[0], None if axes is None else [int(axis) for axis in axes])


def _transposed_matrix(matrix: np.ndarray) -> np.ndarray:
    """Transpose in strips: on a weight of hundreds of megabytes three times as fast as numpy's own copy."""
    result = own_pages(matrix.shape[::-1], matrix.dtype)
    for start in range(0, matrix.shape[0], _STRIP):
        result[:, start : start + _STRIP] = matrix[start : start + _STRIP].T
    return result


def _reducer(function: Callable[..., np.ndarray]) -> Evaluator:
    def evaluate(call: Call, arrays: list[np.ndarray]) -> np.ndarray:
        axis = call.attrs.axis
        axes = None if axis is None else tuple(int(a) for a in axis)
        return function(arrays[0], axis=axes, keepdims=bool(call.attrs.keepdims))

    return evaluate


def _elementwise(function: Callable[..., np.ndarray]) -> Evaluator:
    return lambda _call, arrays: function(*arrays)


def _broadcast(call: Call, arrays: list[np.ndarray]) -> np.ndarray:
    return np.broadcast_to(arrays[0], _result_shape(call))


def _taken(call: Call, arrays: list[np.ndarray]) -> np.ndarray:
    modes: Mapping[str, Literal["clip", "wrap"]] = {"clip": "clip", "wrap": "wrap"}
    axis = None if call.attrs.axis is None else int(call.attrs.axis)
    mode = modes.get(str(call.attrs.mode))
    return np.take(arrays[0], arrays[1], axis=axis, mode=mode or "raise")


def _sliced(call: Call, arrays: list[np.ndarray]) -> np.ndarray:
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


def _split(call: Call, arrays: list[np.ndarray]) -> list[np.ndarray]:
    sections = call.attrs.indices_or_sections
    cuts = int(sections) if isinstance(sections, tvm.tirx.IntImm) else [int(s) for s in sections]
    return np.split(arrays[0], cuts, axis=int(call.attrs.axis))


def _full(call: Call, arrays: list[np.ndarray]) -> np.ndarray:
    return np.full(_result_shape(call), arrays[0])


def _dequantized(call: Call, arrays: list[np.ndarray]) -> np.ndarray:
    """Numbers of a vector, or a few; matrices and filters stay integers, for units that multiply those."""
    array, scale, zero_point = arrays
    is_matrix = array.size > _FEW and sum(size > 1 for size in array.shape) > 1
    if array.dtype.itemsize == 1 and is_matrix:
        raise NotImplementedError
    return dequantized(array, scale, zero_point, int(call.attrs.axis))


def dequantized(
    array: np.ndarray, scale: np.ndarray, zero_point: np.ndarray, axis: int
) -> np.ndarray:
    """The numbers that integers stand for; scales and zero points, if there are several, vary along `axis`."""
    shape = [1] * array.ndim
    if max(scale.size, zero_point.size) > 1:
        shape[axis] = max(scale.size, zero_point.size)
    scale, zero_point = (a.reshape(shape if a.size > 1 else ()) for a in (scale, zero_point))
    return (array.astype("int32") - zero_point).astype("float32") * scale


def _clipped(call: Call, arrays: list[np.ndarray]) -> np.ndarray:
    low, high = (argument.value for argument in call.args[1:3])
    return np.clip(arrays[0], low, high)


def _cumulative(call: Call, arrays: list[np.ndarray]) -> np.ndarray:
    if call.attrs.exclusive:
        raise NotImplementedError
    axis = None if call.attrs.axis is None else int(call.attrs.axis)
    return np.cumsum(arrays[0], axis=axis, dtype=dtype_of(call))


def _batch_normalized(call: Call, arrays: list[np.ndarray]) -> list[np.ndarray]:
    """In training, by the data's own statistics: exporters write weight standardisation so."""
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


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


_ELEMENTWISE: Mapping[str, Callable[..., np.ndarray]] = {
    "abs": np.abs,
    "acos": np.arccos,
    "acosh": np.arccosh,
    "add": np.add,
    "asin": np.arcsin,
    "asinh": np.arcsinh,
    "atan": np.arctan,
    "atanh": np.arctanh,
    "ceil": np.ceil,
    "cos": np.cos,
    "cosh": np.cosh,
    "divide": np.divide,
    "equal": np.equal,
    "erf": np.vectorize(erf),
    "exp": np.exp,
    "floor": np.floor,
    "floor_divide": np.floor_divide,
    "greater": np.greater,
    "greater_equal": np.greater_equal,
    "less": np.less,
    "less_equal": np.less_equal,
    "log": np.log,
    "logical_and": np.logical_and,
    "logical_not": np.logical_not,
    "logical_or": np.logical_or,
    "matmul": np.matmul,
    "maximum": np.maximum,
    "minimum": np.minimum,
    "mod": np.mod,
    "multiply": np.multiply,
    "negative": np.negative,
    "not_equal": np.not_equal,
    "power": np.power,
    "rsqrt": lambda x: 1 / np.sqrt(x),
    "sigmoid": _sigmoid,
    "sign": np.sign,
    "sin": np.sin,
    "sinh": np.sinh,
    "sqrt": np.sqrt,
    "square": np.square,
    "subtract": np.subtract,
    "tan": np.tan,
    "tanh": np.tanh,
    "trunc": np.trunc,
    "where": np.where,
}

EVALUATORS: Mapping[str, Evaluator] = {
    **{name: _elementwise(function) for name, function in _ELEMENTWISE.items()},
    "astype": lambda call, arrays: arrays[0].astype(dtype_of(call)),
    "broadcast_to": _broadcast,
    "clip": _clipped,
    "concat": lambda call, arrays: np.concatenate(arrays, axis=int(call.attrs.axis or 0)),
    "cumsum": _cumulative,
    "dequantize": _dequantized,
    "expand_dims": _shaped,
    "flatten": _shaped,
    "full": _full,
    "max": _reducer(np.max),
    "mean": _reducer(np.mean),
    "min": _reducer(np.min),
    "nn.batch_norm": _batch_normalized,
    "permute_dims": _transposed,
    "prod": _reducer(np.prod),
    "reshape": _shaped,
    "split": _split,
    "squeeze": _shaped,
    "std": _reducer(np.std),
    "stack": lambda call, arrays: np.stack(arrays, axis=int(call.attrs.axis)),
    "strided_slice": _sliced,
    "sum": _reducer(np.sum),
    "take": _taken,
    "tile": lambda call, arrays: np.tile(arrays[0], [int(r) for r in call.attrs.repeats]),
    "variance": _reducer(np.var),
    "zeros": lambda call, _arrays: np.zeros(_result_shape(call), dtype_of(call)),
    "ones": lambda call, _arrays: np.ones(_result_shape(call), dtype_of(call)),
}
"""Operator → its evaluation; what raises `NotImplementedError` is left to TVM's own code."""
