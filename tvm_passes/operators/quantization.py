"""Entries that convert between real numbers and the integers that represent them."""

from __future__ import annotations

from tvm_passes.onnx import rules
from tvm_passes.operators import flops
from tvm_passes.operators.entry import Encoding, Operator, Role, Trait
from tvm_passes.operators.evaluation import evaluator
from tvm_passes.operators.onnx_operator import onnx, own

_QUANTIZES = frozenset([Trait.QUANTIZES])

ENTRIES = (
    Operator(
        name="dequantize",
        documentation="(x - zero point) · scale.",
        role=Role.ELEMENTWISE,
        traits=_QUANTIZES,
        flops=flops.no_work,
        encoding=Encoding(),
        evaluate=evaluator("dequantized_constant"),
        onnx=onnx(own("DequantizeLinear", rules=rules.QUANTIZED)),
    ),
    Operator(
        name="quantize",
        documentation="x / scale + zero point, rounded to an integer.",
        role=Role.ELEMENTWISE,
        traits=_QUANTIZES,
        flops=flops.no_work,
        encoding=Encoding(),
        onnx=onnx(own("QuantizeLinear", rules=rules.QUANTIZED)),
    ),
    Operator(
        name="DynamicQuantizeLinear",
        documentation="x quantised by its own range.",
        role=Role.COMPOSITION,
        onnx=onnx("DynamicQuantizeLinear"),
    ),
)
