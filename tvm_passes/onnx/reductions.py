"""Converters of reductions and running sums."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tvm import relax
from tvm.relax import Expr
from tvm.relax.frontend.onnx import onnx_frontend

from tvm_passes.errors import UnsupportedModel
from tvm_passes.onnx.support import array_of, constant, stock

_NAME = "ReduceLogSumExp"


def log_sum_exp(
    builder: relax.BlockBuilder,
    inputs: Sequence[Any],
    attributes: dict[str, Any],
    state: Any,
    opset: int,
) -> Expr:
    """Convert ReduceLogSumExp: exponents are taken relative to the maximum, if that is finite.

    TVM's converter always subtracts the maximum, although ∞ - ∞ is NaN.
    """
    data = inputs[0]
    given = array_of(inputs[1]) if len(inputs) > 1 else attributes.get("axes")
    axes = None if given is None or not len(given) else [int(axis) for axis in given]
    if "float" not in str(data.ty.dtype) or (
        axes is None and attributes.get("noop_with_empty_axes")
    ):
        return stock(_NAME)(builder, inputs, attributes, state, opset)
    largest = builder.emit(relax.op.max(data, axes, keepdims=True))
    zero = constant(0.0, data.ty.dtype)
    shift = builder.emit(relax.op.where(relax.op.isfinite(largest), largest, zero))
    powers = relax.op.exp(relax.op.subtract(data, shift))
    total = builder.emit(relax.op.log(relax.op.sum(powers, axes, keepdims=True)))
    result = builder.emit(relax.op.add(total, shift))
    return result if attributes.get("keepdims", 1) else relax.op.squeeze(result, axes)


def cumulative_sum(builder, inputs, attributes, state, opset) -> Expr:  # noqa: ANN001
    """Convert CumSum by TVM's converter; a reversed sum flips the input and the result."""
    if not attributes.pop("reverse", 0):
        return stock("CumSum")(builder, inputs, attributes, state, opset)
    axis = array_of(inputs[1])
    if axis is None:
        raise UnsupportedModel("its axis is computed from data; expected a constant")
    flipped = [builder.emit(relax.op.flip(inputs[0], int(axis.item()))), inputs[1]]
    total = stock("CumSum")(builder, onnx_frontend.onnx_input(flipped), attributes, state, opset)
    return relax.op.flip(builder.emit(total), int(axis.item()))
