"""Converters of arithmetic to basic operators, which later passes recognise."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
from tvm import relax
from tvm.relax import Expr
from tvm.relax.frontend.onnx import onnx_frontend

from tvm_passes.onnx.padding import static_shape
from tvm_passes.onnx.support import Converter, array_of, constant, stock


def _chain(binary: Callable[[Expr, Expr], Expr]) -> Converter:
    """Make the converter of an operator of several inputs to a chain of a binary one."""

    def convert(builder, inputs, _attributes, _state, _opset):  # noqa: ANN001, ANN202
        return functools.reduce(lambda left, right: builder.emit(binary(left, right)), inputs)

    return convert


def mean(builder, inputs, attributes, state, opset) -> Expr:  # noqa: ANN001
    """Convert Mean: the average of several inputs."""
    total = _chain(relax.op.add)(builder, inputs, attributes, state, opset)
    return relax.op.divide(total, relax.const(float(len(inputs)), str(total.ty.dtype)))


def clip(builder, inputs, attributes, state, opset) -> Expr:  # noqa: ANN001
    """Convert Clip to the simplest operator for its limits, such as ReLU for 0 and infinity."""
    data = inputs[0]
    if opset >= 11:
        low, high = array_of(inputs[1]), array_of(inputs[2])
        if (inputs[1] is not None and low is None) or (inputs[2] is not None and high is None):
            return _clip_between(builder, data, inputs[1], inputs[2])
        low, high = (None if bound is None else bound.reshape(()) for bound in (low, high))
    else:
        low, high = attributes.get("min"), attributes.get("max")
    least = -np.inf if low is None or np.isnan(low) else low
    most = np.inf if high is None or np.isnan(high) else high
    if not str(data.ty.dtype).startswith("float"):
        return _clip_integers(data, low, high)
    if float(least) == 0.0 and np.isinf(most):
        return relax.op.nn.relu(data)
    if np.isinf(least):
        return relax.op.minimum(data, constant(most, data.ty.dtype))
    if np.isinf(most):
        return relax.op.maximum(data, constant(least, data.ty.dtype))
    return relax.op.clip(data, float(least), float(most))


def _clip_between(
    builder: relax.BlockBuilder, data: Expr, low: Expr | None, high: Expr | None
) -> Expr:
    """Convert Clip with limits that the model computes."""
    if low is not None:
        data = builder.emit(relax.op.maximum(data, low))
    return data if high is None else relax.op.minimum(data, high)


def _clip_integers(data: Expr, low: Any, high: Any) -> Expr:
    dtype = str(data.ty.dtype)
    if low is not None:
        data = relax.op.maximum(data, constant(low, dtype))
    if high is not None:
        data = relax.op.minimum(data, constant(high, dtype))
    return data


def power(builder, inputs, attributes, state, opset) -> Expr:  # noqa: ANN001
    """Convert Pow; powers of integers are computed in float64, as TVM has powers of floats only."""
    base, exponent = inputs[0], inputs[1]
    dtype = str(base.ty.dtype)
    if dtype.startswith("float"):
        if str(exponent.ty.dtype) != dtype:
            exponent = builder.emit(relax.op.astype(exponent, dtype))
        return stock("Pow")(
            builder, onnx_frontend.onnx_input([base, exponent]), attributes, state, opset
        )
    wide = [builder.emit(relax.op.astype(value, "float64")) for value in (base, exponent)]
    return relax.op.astype(builder.emit(relax.op.power(*wide)), dtype)


def _hyperbolic(combine: Callable[[Expr, Expr], Expr]) -> Converter:
    """Make the converter of a combination of e^x and e^-x.

    TVM's own operators have no code for a CPU.
    """

    def convert(builder, inputs, _attributes, _state, _opset):  # noqa: ANN001, ANN202
        grown = builder.emit(relax.op.exp(inputs[0]))
        shrunk = builder.emit(relax.op.exp(builder.emit(relax.op.negative(inputs[0]))))
        half = relax.const(0.5, str(inputs[0].ty.dtype))
        return relax.op.multiply(builder.emit(combine(grown, shrunk)), half)

    return convert


def is_infinite(builder, inputs, attributes, _state, _opset) -> Expr:  # noqa: ANN001
    """Convert IsInf: comparisons with those infinities that its attributes select."""
    data, dtype = inputs[0], str(inputs[0].ty.dtype)
    limits = [
        constant(limit, dtype)
        for limit, name in ((np.inf, "detect_positive"), (-np.inf, "detect_negative"))
        if attributes.get(name, 1)
    ]
    if not limits:
        return relax.op.zeros(static_shape(data), "bool")
    found = [builder.emit(relax.op.equal(data, limit)) for limit in limits]
    return found[0] if len(found) == 1 else relax.op.logical_or(*found)


def equal(builder, inputs, attributes, state, opset) -> Expr:  # noqa: ANN001
    """Convert Equal; a comparison of floats with themselves becomes a test for NaN.

    Models test for NaN in this way. TVM would fold the comparison to a constant.
    """
    left, right = inputs[0], inputs[1]
    if left.same_as(right) and str(left.ty.dtype).startswith("float"):
        return relax.op.logical_not(builder.emit(relax.op.isnan(left)))
    return stock("Equal")(builder, inputs, attributes, state, opset)


cosh = _hyperbolic(relax.op.add)
maximum = _chain(relax.op.maximum)
minimum = _chain(relax.op.minimum)
sinh = _hyperbolic(relax.op.subtract)
total = _chain(relax.op.add)
