"""An operator from outside the package, which neither ONNX nor TVM has: elements moved around an axis."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tvm_passes.onnx.facts import NodeFacts, TensorFacts
from tvm_passes.operators import OnnxOperator, Operator, Role, Trait
from tvm_passes.operators.flops import no_work

if TYPE_CHECKING:
    from tvm import relax

NAME = "example.rotate"


def _convert(
    _builder: relax.BlockBuilder,
    inputs: Sequence[Any],
    attributes: dict[str, Any],
    _state: Any,
    _opset: int,
) -> relax.Expr:
    from tvm_passes.operator_calls import operator_call

    return operator_call(NAME, inputs[0], steps=attributes.get("steps", 1))


def _legalize(builder: relax.BlockBuilder, call: relax.Call) -> relax.Expr:
    from tvm import te

    steps = int(call.attrs.steps)

    def rotated(x: te.Tensor) -> te.Tensor:
        extent = int(x.shape[-1])
        return te.compute(
            x.shape, lambda *index: x(*index[:-1], (index[-1] + extent - steps) % extent), "rotated"
        )

    return builder.call_te(rotated, call.args[0])


def _steps(node: NodeFacts) -> str | None:
    steps, data = node.attributes.get("steps", 1), node.shape(0)
    if data is None or 0 <= steps <= data[-1]:
        return None
    return f"got steps {steps}; expected 0 to {data[-1]}"


def _infer(node: NodeFacts) -> list[TensorFacts | None]:
    data = node.inputs[0]
    return [None if data is None else TensorFacts(shape=data.shape, dtype=data.dtype)]


def _reference(x: np.ndarray, *, steps: int = 1, **_: Any) -> np.ndarray:
    return np.roll(x, steps, -1)


OPERATOR = Operator(
    name=NAME,
    documentation="x with each element moved along the last axis, around its end.",
    role=Role.ANCHOR,
    traits=frozenset([Trait.KEEPS_ELEMENTS]),
    flops=no_work,
    legalize=_legalize,
    infer_type=lambda call: call.args[0].ty,
    onnx=(
        OnnxOperator(
            name="Rotate",
            domain="com.example",
            convert=_convert,
            rules=(_steps,),
            infer=_infer,
            reference=_reference,
        ),
    ),
)
