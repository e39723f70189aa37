"""An operator from outside the package that operators of Relax compute: x · min(max(x + 2, 0), 2) / 2."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tvm_passes.operators import OnnxOperator, Operator, Role

if TYPE_CHECKING:
    from tvm import relax


def _convert(
    builder: relax.BlockBuilder,
    inputs: Sequence[Any],
    _attributes: dict[str, Any],
    _state: Any,
    _opset: int,
) -> relax.Expr:
    from tvm import relax

    data, dtype = inputs[0], str(inputs[0].ty.dtype)
    line = builder.emit(relax.op.add(data, relax.const(2.0, dtype)))
    gate = builder.emit(relax.op.clip(line, 0.0, 2.0))
    half = builder.emit(relax.op.multiply(data, relax.const(0.5, dtype)))
    return relax.op.multiply(half, gate)


def _reference(x: np.ndarray, **_: Any) -> np.ndarray:
    return x * np.clip(x + 2, 0, 2) / 2


OPERATOR = Operator(
    name="HardMish",
    documentation="x · (x + 2) / 2, the factor x + 2 at least 0 and at most 2.",
    role=Role.COMPOSITION,
    onnx=(
        OnnxOperator(name="HardMish", domain="com.example", convert=_convert, reference=_reference),
    ),
)
