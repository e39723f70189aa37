"""References in float64 of operators that ONNX's evaluator computes in float32, slowly, or wrongly.

Convolutions and poolings loop over the elements of the window. Each step is one product, sum or
maximum of whole tensors, so that nothing is padded or copied into columns.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from onnx import NodeProto, TensorProto

from tvm_passes.onnx.exact_windows import SpatialWindow

_SOFTMAX_BY_AXIS = 13
"""First operator set whose softmax is along one axis; earlier ones span it and all later axes."""


def _product(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Compute matrix products, element by element if there is nothing to sum (depth-wise)."""
    return a * b if a.shape[-1] == 1 else np.ascontiguousarray(a) @ b


def matmul(a: np.ndarray, b: np.ndarray, **_: Any) -> np.ndarray:
    """Compute matrix products over the last two axes, one for each index of the other axes."""
    # numpy calls BLAS for one matrix at a time, and only for contiguous ones.
    a, b = np.ascontiguousarray(a), np.ascontiguousarray(b)
    if a.ndim > 1 and b.ndim == 2:
        return (a.reshape(-1, a.shape[-1]) @ b).reshape(*a.shape[:-1], b.shape[1])
    return np.matmul(a, b)


def conv(x: np.ndarray, w: np.ndarray, b: Any = None, **attributes: Any) -> np.ndarray:
    """Compute a convolution: the sum of one matrix product per element of the window."""
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


def conv_transpose(x: np.ndarray, w: np.ndarray, b: Any = None, **attributes: Any) -> np.ndarray:
    """Compute a transposed convolution: the sum of one matrix product per element of the window."""
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
    # The adjoint of a convolution over the result: each element of the window writes where it
    # would read.
    window = SpatialWindow.of(
        sizes, w.shape[2:], {"strides": strides, "dilations": dilations, "pads": pads}
    )
    for index, places, under in window.taps():
        part = images[places]
        product = _product(filters[index], part.reshape(*part.shape[:3], -1))
        y[under] += product.reshape(*product.shape[:3], *part.shape[3:])
    y = y.reshape(y.shape[0], -1, *sizes)
    return y if b is None else y + b.reshape(-1, *(1,) * axes)


def max_pool(x: np.ndarray, **attributes: Any) -> np.ndarray:
    """Compute the maximum of each window."""
    if len([name for name in attributes["node"].output if name]) > 1:
        raise NotImplementedError("indices of a maximum")
    window = SpatialWindow.of(x.shape[2:], attributes["kernel_shape"], attributes)
    y = np.full((*x.shape[:2], *window.positions), -np.inf, x.dtype)
    for _, places, under in window.taps():
        y[places] = np.maximum(y[places], x[under])
    return y


def average_pool(x: np.ndarray, **attributes: Any) -> np.ndarray:
    """Compute the average of each window."""
    window = SpatialWindow.of(x.shape[2:], attributes["kernel_shape"], attributes)
    y = np.zeros((*x.shape[:2], *window.positions), x.dtype)
    for _, places, under in window.taps():
        y[places] += x[under]
    extents = window.extents(with_padding=bool(attributes.get("count_include_pad")))
    return y / math.prod(np.ix_(*extents))


def _along(x: np.ndarray, node: NodeProto, opset: int) -> tuple[np.ndarray, int]:
    """Return the operand and the axis of a softmax: `x`, or a matrix in older operator sets."""
    # The evaluator fills in the defaults of the newest operator set, which differ.
    stated = next((one.i for one in node.attribute if one.name == "axis"), None)
    if opset >= _SOFTMAX_BY_AXIS:
        return x, -1 if stated is None else stated
    axis = 1 if stated is None else stated % x.ndim
    return x.reshape(math.prod(x.shape[:axis]), -1), 1


def softmax(x: np.ndarray, *, node: NodeProto, opset: int, **_: Any) -> np.ndarray:
    """Compute a softmax along one axis; before operator set 13, over it and all later axes."""
    data, axis = _along(x, node, opset)
    e = np.exp(data - data.max(axis=axis, keepdims=True))
    return (e / e.sum(axis=axis, keepdims=True)).reshape(x.shape)


def log_softmax(x: np.ndarray, *, node: NodeProto, opset: int, **_: Any) -> np.ndarray:
    """Compute the logarithm of a softmax."""
    data, axis = _along(x, node, opset)
    data = data - data.max(axis=axis, keepdims=True)
    return (data - np.log(np.exp(data).sum(axis=axis, keepdims=True))).reshape(x.shape)


def batch_norm(
    x: np.ndarray, scale: np.ndarray, bias: np.ndarray, mean: np.ndarray, var: np.ndarray,
    *, epsilon: float, training_mode: int = 0, node: NodeProto, **_: Any,
) -> np.ndarray:  # fmt: skip
    """Normalise by the given statistics or, in training mode, by those of the data."""
    if len([name for name in node.output if name]) > 1:
        raise NotImplementedError("the running statistics of a normalisation")
    if training_mode:
        others = tuple(axis for axis in range(x.ndim) if axis != 1)
        mean, var = x.mean(axis=others), x.var(axis=others)
    shape = (-1, *(1,) * (x.ndim - 2))
    mean, var, scale, bias = (one.reshape(shape) for one in (mean, var, scale, bias))
    return (x - mean) / np.sqrt(var + epsilon) * scale + bias


def lrn(x: np.ndarray, alpha: float, beta: float, bias: float, size: int, **_: Any) -> np.ndarray:
    """Compute x / (bias + alpha / size · sum of x² over `size` neighbouring channels)^beta."""
    squares, total = x * x, np.zeros_like(x)
    for shift in range(-((size - 1) // 2), -(-(size - 1) // 2) + 1):
        low, high = max(0, -shift), min(x.shape[1], x.shape[1] - shift)
        if low < high:
            total[:, low:high] += squares[:, low + shift : high + shift]
    return x / (bias + alpha / size * total) ** beta


def cast(x: np.ndarray, to: int, **_: Any) -> np.ndarray:
    """Convert to another element type; float32 stays float64."""
    if to in (TensorProto.FLOAT, TensorProto.DOUBLE):
        return x.astype(np.float64)
    if to in _INTEGERS:
        return x.astype(_INTEGERS[to])
    raise NotImplementedError("a cast to a narrow type")


_vectorized_erf = np.vectorize(math.erf, otypes=[np.float64])


def erf(x: np.ndarray, **_: Any) -> np.ndarray:
    """Compute the error function."""
    value: np.ndarray = _vectorized_erf(x)
    return value


_INTEGERS = {
    TensorProto.BOOL: np.bool_,
    TensorProto.INT32: np.int32,
    TensorProto.INT64: np.int64,
    TensorProto.INT8: np.int8,
    TensorProto.UINT8: np.uint8,
}
