"""Converters of activations that compute in the type of their input, unlike some of TVM's."""

from __future__ import annotations

from tvm import relax
from tvm.relax import Expr


def elu(builder, inputs, attributes, _state, _opset) -> Expr:  # noqa: ANN001
    """Convert Elu: x if x > 0, else alpha · (e^x - 1)."""
    return _exponential(builder, inputs[0], float(attributes.get("alpha", 1.0)))


def selu(builder, inputs, attributes, _state, _opset) -> Expr:  # noqa: ANN001
    """Convert Selu: gamma times :func:`elu`."""
    alpha = float(attributes.get("alpha", 1.67326319217681884765625))
    gamma = float(attributes.get("gamma", 1.05070102214813232421875))
    scale = relax.const(gamma, str(inputs[0].ty.dtype))
    return relax.op.multiply(scale, builder.emit(_exponential(builder, inputs[0], alpha)))


def _exponential(builder: relax.BlockBuilder, data: Expr, alpha: float) -> Expr:
    dtype = str(data.ty.dtype)
    lacking = relax.op.subtract(relax.const(1.0, dtype), builder.emit(relax.op.exp(data)))
    negative = builder.emit(relax.op.nn.relu(builder.emit(lacking)))
    below = builder.emit(relax.op.multiply(relax.const(-alpha, dtype), negative))
    return relax.op.add(below, builder.emit(relax.op.nn.relu(data)))


def thresholded_relu(builder, inputs, attributes, _state, _opset) -> Expr:  # noqa: ANN001
    """Convert ThresholdedRelu: x if x > alpha, else 0.

    It is a selection, because a product of 0 and an infinite x would be NaN.
    """
    data, dtype = inputs[0], str(inputs[0].ty.dtype)
    alpha = relax.const(float(attributes.get("alpha", 1.0)), dtype)
    above = builder.emit(relax.op.greater(data, alpha))
    return relax.op.where(above, data, relax.const(0.0, dtype))


def hard_swish(builder, inputs, _attributes, _state, _opset) -> Expr:  # noqa: ANN001
    """Convert HardSwish: x · clip(x/6 + 1/2, 0, 1)."""
    dtype = str(inputs[0].ty.dtype)
    sixth, half = relax.const(1 / 6, dtype), relax.const(0.5, dtype)
    line = builder.emit(relax.op.add(relax.op.multiply(inputs[0], sixth), half))
    return relax.op.multiply(inputs[0], relax.op.clip(line, 0.0, 1.0))


def hard_sigmoid(builder, inputs, attributes, _state, _opset) -> Expr:  # noqa: ANN001
    """Convert HardSigmoid: clip(alpha · x + beta, 0, 1)."""
    dtype = str(inputs[0].ty.dtype)
    slope = relax.const(float(attributes.get("alpha", 0.2)), dtype)
    offset = relax.const(float(attributes.get("beta", 0.5)), dtype)
    line = builder.emit(relax.op.add(relax.op.multiply(inputs[0], slope), offset))
    return relax.op.clip(line, 0.0, 1.0)
