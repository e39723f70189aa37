"""Operators that ONNX's reference evaluator computes in float32, element by element, or not as specified: in float64.

Convolutions and poolings go over the positions of the window. Each is one product, sum or maximum of whole tensors, so
nothing is padded or copied into columns.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from onnx import NodeProto, TensorProto
from onnx.reference.op_run import OpRun

Index = Any
"""A tuple that indexes an array; numpy's own type of it is private."""
_SOFTMAX_BY_AXIS = 13
"""Operator set before which a softmax goes over all axes from its own on."""


@dataclass(frozen=True, kw_only=True)
class SpatialWindow:
    """A window over spatial axes; one entry for each axis in every field."""

    sizes: tuple[int, ...]
    """Of the tensor that the window moves over, without padding."""
    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    before: tuple[int, ...]
    """Padding in front."""
    after: tuple[int, ...]
    """Padding at the end."""
    ceil_mode: bool = False

    @classmethod
    def of(
        cls, sizes: Sequence[int], kernel: Sequence[int], attributes: Mapping[str, Any]
    ) -> SpatialWindow:
        """A window as the attributes of a node describe it."""
        axes = len(sizes)
        strides = tuple(attributes.get("strides") or (1,) * axes)
        dilations = tuple(attributes.get("dilations") or (1,) * axes)
        pads = tuple(attributes.get("pads") or (0,) * (2 * axes))
        auto = attributes.get("auto_pad") or "NOTSET"
        if auto.startswith("SAME"):
            pads = _same(sizes, kernel, strides, dilations, upper=auto == "SAME_UPPER")
        elif auto == "VALID":
            pads = (0,) * (2 * axes)
        return cls(
            sizes=tuple(sizes),
            kernel=tuple(kernel),
            strides=strides,
            dilations=dilations,
            before=pads[:axes],
            after=pads[axes:],
            ceil_mode=bool(attributes.get("ceil_mode")) and not auto.startswith("SAME"),
        )

    @property
    def positions(self) -> tuple[int, ...]:
        """Number of places of the window along each axis."""
        return tuple(self._positions(axis) for axis in range(len(self.sizes)))

    def _positions(self, axis: int) -> int:
        reach = (self.kernel[axis] - 1) * self.dilations[axis] + 1
        room = self.sizes[axis] + self.before[axis] + self.after[axis] - reach
        if not self.ceil_mode:
            return room // self.strides[axis] + 1
        count = -(-room // self.strides[axis]) + 1
        # A window that begins in the padding at the end is none.
        begins = (count - 1) * self.strides[axis]
        return count - (begins >= self.sizes[axis] + self.before[axis])

    def taps(self) -> Iterator[tuple[Index, Index, Index]]:
        """Indices for each element of the window: its own, its places on the tensor, and the elements under it.

        They index the last axes of a filter, a result and a tensor.
        """
        along = [list(self._along(axis)) for axis in range(len(self.sizes))]
        for tap in itertools.product(*along):
            index, places, under = zip(*tap, strict=True)
            yield (..., *index), (..., *places), (..., *under)

    def _along(self, axis: int) -> Iterator[tuple[int, slice, slice]]:
        stride, size = self.strides[axis], self.sizes[axis]
        last = self.positions[axis] - 1
        # Elements that lie on the tensor nowhere are left out before they are looped over.
        reach = (size - 1 + self.before[axis]) // self.dilations[axis]
        for index in range(min(self.kernel[axis], reach + 1)):
            shift = index * self.dilations[axis] - self.before[axis]
            first = max(0, -(shift // stride))
            end = min(last, (size - 1 - shift) // stride)
            if first <= end:
                begin = first * stride + shift
                under = slice(begin, begin + (end - first) * stride + 1, stride)
                yield index, slice(first, end + 1), under

    def extents(self, *, with_padding: bool) -> list[np.ndarray]:
        """Number of elements of the window that lie on the tensor, or on its padding too, by place, of each axis."""
        found = []
        for axis, count in enumerate(self.positions):
            before, after = (self.before[axis], self.after[axis]) if with_padding else (0, 0)
            starts = np.arange(count) * self.strides[axis] - self.before[axis]
            low = np.maximum(0, -((starts + before) // self.dilations[axis]))
            most = (self.sizes[axis] + after - 1 - starts) // self.dilations[axis]
            found.append(np.minimum(self.kernel[axis] - 1, most) - low + 1)
        return found


def _same(
    sizes: Sequence[int],
    kernel: Sequence[int],
    strides: Sequence[int],
    dilations: Sequence[int],
    *,
    upper: bool,
) -> tuple[int, ...]:
    """Padding with which there are as many places as strides fit into the tensor."""
    before, after = [], []
    for size, width, stride, dilation in zip(sizes, kernel, strides, dilations, strict=True):
        total = max(0, (-(-size // stride) - 1) * stride + (width - 1) * dilation + 1 - size)
        small, large = total // 2, total - total // 2
        before.append(small if upper else large)
        after.append(large if upper else small)
    return (*before, *after)


def _product(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Matrix products; where there is nothing to sum, as in depthwise convolutions, by elements."""
    return a * b if a.shape[-1] == 1 else np.ascontiguousarray(a) @ b


def _matmul(a: np.ndarray, b: np.ndarray, **_: Any) -> np.ndarray:
    # numpy calls BLAS for one matrix at a time, and only for contiguous ones.
    a, b = np.ascontiguousarray(a), np.ascontiguousarray(b)
    if a.ndim > 1 and b.ndim == 2:
        return (a.reshape(-1, a.shape[-1]) @ b).reshape(*a.shape[:-1], b.shape[1])
    return np.matmul(a, b)


def _conv(x: np.ndarray, w: np.ndarray, b: Any = None, **attributes: Any) -> np.ndarray:
    groups = attributes.get("group") or 1
    window = SpatialWindow.of(x.shape[2:], w.shape[2:], attributes)
    filters = w.reshape(groups, -1, *w.shape[1:])
    images = x.reshape(x.shape[0], groups, -1, *x.shape[2:])
    y = np.zeros((x.shape[0], groups, filters.shape[1], *window.positions), x.dtype)
    for index, places, under in window.taps():
        part = images[under]
        product = _product(filters[index], part.reshape(*part.shape[:3], -1))
        y[places] += product.reshape(*product.shape[:3], *part.shape[3:])
    y = y.reshape(y.shape[0], -1, *window.positions)
    return y if b is None else y + b.reshape(-1, *(1,) * len(window.sizes))


def _conv_transpose(x: np.ndarray, w: np.ndarray, b: Any = None, **attributes: Any) -> np.ndarray:
    if attributes.get("output_shape") or (attributes.get("auto_pad") or "NOTSET") != "NOTSET":
        raise NotImplementedError("a transposed convolution whose padding follows from its result")
    groups, axes = attributes.get("group") or 1, x.ndim - 2
    strides = attributes.get("strides") or [1] * axes
    dilations = attributes.get("dilations") or [1] * axes
    pads = attributes.get("pads") or [0] * (2 * axes)
    further = attributes.get("output_padding") or [0] * axes
    sizes = [
        (x.shape[2 + axis] - 1) * strides[axis] + (w.shape[2 + axis] - 1) * dilations[axis] + 1
        + further[axis] - pads[axis] - pads[axes + axis]
        for axis in range(axes)
    ]  # fmt: skip
    filters = w.reshape(groups, -1, *w.shape[1:]).swapaxes(1, 2)
    images = x.reshape(x.shape[0], groups, -1, *x.shape[2:])
    y = np.zeros((x.shape[0], groups, filters.shape[1], *sizes), x.dtype)
    # The adjoint of a convolution over the result: each element of the window writes what it would read.
    window = SpatialWindow.of(
        sizes, w.shape[2:], {"strides": strides, "dilations": dilations, "pads": pads}
    )
    for index, places, under in window.taps():
        part = images[places]
        product = _product(filters[index], part.reshape(*part.shape[:3], -1))
        y[under] += product.reshape(*product.shape[:3], *part.shape[3:])
    y = y.reshape(y.shape[0], -1, *sizes)
    return y if b is None else y + b.reshape(-1, *(1,) * axes)


def _max_pool(x: np.ndarray, **attributes: Any) -> np.ndarray:
    if len([name for name in attributes["node"].output if name]) > 1:
        raise NotImplementedError("indices of a maximum")
    window = SpatialWindow.of(x.shape[2:], attributes["kernel_shape"], attributes)
    y = np.full((*x.shape[:2], *window.positions), -np.inf, x.dtype)
    for _, places, under in window.taps():
        y[places] = np.maximum(y[places], x[under])
    return y


def _average_pool(x: np.ndarray, **attributes: Any) -> np.ndarray:
    window = SpatialWindow.of(x.shape[2:], attributes["kernel_shape"], attributes)
    y = np.zeros((*x.shape[:2], *window.positions), x.dtype)
    for _, places, under in window.taps():
        y[places] += x[under]
    extents = window.extents(with_padding=bool(attributes.get("count_include_pad")))
    return y / math.prod(np.ix_(*extents))


def _along(x: np.ndarray, node: NodeProto, opset: int) -> tuple[np.ndarray, int]:
    """What a softmax is computed over: `x`, or a matrix in older operator sets, and the axis."""
    # The evaluator fills in the defaults of the newest operator set, which differ.
    stated = next((one.i for one in node.attribute if one.name == "axis"), None)
    if opset >= _SOFTMAX_BY_AXIS:
        return x, -1 if stated is None else stated
    axis = 1 if stated is None else stated % x.ndim
    return x.reshape(math.prod(x.shape[:axis]), -1), 1


def _softmax(x: np.ndarray, *, node: NodeProto, opset: int, **_: Any) -> np.ndarray:
    data, axis = _along(x, node, opset)
    e = np.exp(data - data.max(axis=axis, keepdims=True))
    return (e / e.sum(axis=axis, keepdims=True)).reshape(x.shape)


def _log_softmax(x: np.ndarray, *, node: NodeProto, opset: int, **_: Any) -> np.ndarray:
    data, axis = _along(x, node, opset)
    data = data - data.max(axis=axis, keepdims=True)
    return (data - np.log(np.exp(data).sum(axis=axis, keepdims=True))).reshape(x.shape)


def _batch_norm(
    x: np.ndarray, scale: np.ndarray, bias: np.ndarray, mean: np.ndarray, var: np.ndarray,
    *, epsilon: float, training_mode: int = 0, node: NodeProto, **_: Any,
) -> np.ndarray:  # fmt: skip
    if len([name for name in node.output if name]) > 1:
        raise NotImplementedError("the running statistics of a normalisation")
    if training_mode:
        others = tuple(axis for axis in range(x.ndim) if axis != 1)
        mean, var = x.mean(axis=others), x.var(axis=others)
    shape = (-1, *(1,) * (x.ndim - 2))
    mean, var, scale, bias = (one.reshape(shape) for one in (mean, var, scale, bias))
    return (x - mean) / np.sqrt(var + epsilon) * scale + bias


def _lrn(x: np.ndarray, alpha: float, beta: float, bias: float, size: int, **_: Any) -> np.ndarray:
    squares, total = x * x, np.zeros_like(x)
    for shift in range(-((size - 1) // 2), -(-(size - 1) // 2) + 1):
        low, high = max(0, -shift), min(x.shape[1], x.shape[1] - shift)
        if low < high:
            total[:, low:high] += squares[:, low + shift : high + shift]
    return x / (bias + alpha / size * total) ** beta


def _cast(x: np.ndarray, to: int, **_: Any) -> np.ndarray:
    if to in (TensorProto.FLOAT, TensorProto.DOUBLE):
        return x.astype(np.float64)
    if to in _INTEGERS:
        return x.astype(_INTEGERS[to])
    raise NotImplementedError("a cast to a narrow type")


_INTEGERS = {
    TensorProto.BOOL: np.bool_,
    TensorProto.INT32: np.int32,
    TensorProto.INT64: np.int64,
    TensorProto.INT8: np.int8,
    TensorProto.UINT8: np.uint8,
}

_erf = np.vectorize(math.erf, otypes=[np.float64])

_FUNCTIONS: Mapping[str, Callable[..., np.ndarray]] = {
    "AveragePool": _average_pool,
    "BatchNormalization": _batch_norm,
    "Cast": _cast,
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "Erf": lambda x, **_: _erf(x),
    "LRN": _lrn,
    "LogSoftmax": _log_softmax,
    "MatMul": _matmul,
    "MaxPool": _max_pool,
    "Softmax": _softmax,
}


@cache
def operators() -> tuple[type[OpRun], ...]:
    """Classes for :class:`onnx.reference.ReferenceEvaluator`, one for each of these operators."""
    return tuple(_class(name, function) for name, function in _FUNCTIONS.items())


def _class(name: str, function: Callable[..., np.ndarray]) -> type[OpRun]:
    def _run(self: Any, *tensors: Any, **attributes: Any) -> tuple[np.ndarray]:
        opset = self.run_params["opsets"].get("", 1)
        return (function(*tensors, node=self.onnx_node, opset=opset, **attributes),)

    return type(name, (OpRun,), {"op_domain": "", "_run": _run})
