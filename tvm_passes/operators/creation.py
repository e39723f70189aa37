"""Entries of constants and shapes; also sequences of tensors, which no imported module contains."""

from __future__ import annotations

from tvm_passes.onnx import rules_indices
from tvm_passes.operators.entry import Evaluator, Operator, composition
from tvm_passes.operators.evaluation import evaluator
from tvm_passes.operators.onnx_operator import OnnxOperator, onnx, own


def _creation(
    name: str, documentation: str, *imported: str | OnnxOperator, evaluate: Evaluator | None = None
) -> Operator:
    return Operator(name=name, documentation=documentation, evaluate=evaluate, onnx=onnx(*imported))


ENTRIES = (
    _creation(
        "arange", "Numbers from a start in equal steps.", own("Range", rules=(rules_indices.step,))
    ),
    _creation("eye", "1 on a diagonal, 0 elsewhere."),
    _creation("eye_like", "1 on a diagonal, 0 elsewhere, in the shape of x.", "EyeLike"),
    _creation("full", "A tensor of one value.", "ConstantOfShape", evaluate=evaluator("filled")),
    _creation("ones", "A tensor of ones.", evaluate=evaluator("ones")),
    _creation("zeros", "A tensor of zeros.", evaluate=evaluator("zeros")),
    composition("Constant", "A tensor that the model holds."),
    composition("Optional", "A value, or none."),
    composition("OptionalGetElement", "The value of an optional one."),
    composition("OptionalHasElement", "True if there is a value."),
    composition("SequenceAt", "A tensor of a sequence."),
    composition("SequenceConstruct", "A sequence of tensors."),
    composition("SequenceEmpty", "A sequence without tensors."),
    composition("SequenceErase", "A sequence without one of its tensors."),
    composition("SequenceInsert", "A sequence with a further tensor."),
    composition("SequenceLength", "Number of tensors of a sequence."),
    composition("Shape", "Sizes of x."),
    composition("Size", "Number of elements of x."),
)
