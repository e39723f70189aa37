"""Converters of normalisations."""

from __future__ import annotations

import functools

from tvm import relax
from tvm.relax import Expr

from tvm_passes.onnx.padding import static_shape
from tvm_passes.onnx.support import stock


def rms_norm(builder, inputs, attributes, _state, _opset) -> Expr:  # noqa: ANN001
    """Convert RMSNormalization to arithmetic: TVM cannot build its operator over several axes."""
    data, scale = inputs[0], inputs[1]
    ndim, dtype = len(static_shape(data)), str(data.ty.dtype)
    axes = list(range(attributes.get("axis", -1) % ndim, ndim))
    epsilon = relax.const(attributes.get("epsilon", 1e-5), dtype)
    square = builder.emit(relax.op.mean(relax.op.multiply(data, data), axes, keepdims=True))
    inverse = builder.emit(relax.op.rsqrt(relax.op.add(square, epsilon)))
    return relax.op.multiply(builder.emit(relax.op.multiply(data, inverse)), scale)


def lrn(builder, inputs, attributes, state, opset) -> Expr:  # noqa: ANN001
    """Convert LRN by TVM's converter if the window has an odd size, else to arithmetic.

    A window of even size has one channel more after the normalised channel than before it. Windows
    are limited to the existing channels; the divisor is the size that the model states.
    """
    data, size = inputs[0], attributes["size"]
    alpha = attributes.get("alpha", 0.0001) / size
    channels = static_shape(data)[1]
    before, after = (min(side, channels - 1) for side in ((size - 1) // 2, size // 2))
    size = before + 1 + after
    if size % 2:
        attributes.update(size=size, alpha=alpha * size)
        return stock("LRN")(builder, inputs, attributes, state, opset)
    ndim, dtype = len(static_shape(data)), str(data.ty.dtype)
    widths = [0, 0, before, after, *[0, 0] * (ndim - 2)]
    square = builder.emit(relax.op.nn.pad(builder.emit(relax.op.multiply(data, data)), widths))
    windows = [
        builder.emit(relax.op.strided_slice(square, [1], [start], [start + channels]))
        for start in range(size)
    ]
    total = functools.reduce(lambda a, b: builder.emit(relax.op.add(a, b)), windows)
    alpha = relax.const(alpha, dtype)
    bias = relax.const(attributes.get("bias", 1.0), dtype)
    scale = builder.emit(relax.op.add(builder.emit(relax.op.multiply(total, alpha)), bias))
    beta = relax.const(attributes.get("beta", 0.75), dtype)
    return relax.op.divide(data, builder.emit(relax.op.power(scale, beta)))


def layer_norm(builder, inputs, attributes, state, opset) -> Expr:  # noqa: ANN001
    """Convert LayerNormalization by TVM's converter, which omits mean and inverse deviation.

    These two are computed separately if the node returns them.
    """
    if attributes["tvm_custom"]["num_outputs"] == 1:
        return stock("LayerNormalization")(builder, inputs, attributes, state, opset).fields[0]
    data = inputs[0]
    ndim, dtype = len(static_shape(data)), str(data.ty.dtype)
    axes = list(range(attributes.get("axis", -1) % ndim, ndim))
    epsilon = relax.const(attributes.get("epsilon", 1e-5), dtype)
    normal = stock("LayerNormalization")(builder, inputs, dict(attributes), state, opset).fields[0]
    mean = builder.emit(relax.op.mean(data, axes, keepdims=True))
    variance = builder.emit(relax.op.variance(data, axes, keepdims=True))
    inverse = relax.op.rsqrt(builder.emit(relax.op.add(variance, epsilon)))
    return relax.Tuple([builder.emit(normal), mean, builder.emit(inverse)])
