"""Converter of ``ReduceLogSumExp``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tvm import relax
from tvm.relax import Expr

from layoutsel.model.import_support import array_of, constant, stock

_NAME = "ReduceLogSumExp"


def log_sum_exp(
    builder: relax.BlockBuilder,
    inputs: Sequence[Any],
    attributes: dict[str, Any],
    state: Any,
    opset: int,
) -> Expr:
    """Subtract the maximum where it is finite.

    TVM's converter always subtracts it, and ∞ - ∞ is not a number.
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
