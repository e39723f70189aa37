"""Element-wise operators of several operands, with broadcasting."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from tvm_passes.onnx import rules
from tvm_passes.operators.entry import CountedAs, Encoding, Operator, Role, Trait
from tvm_passes.operators.evaluation import by_elements
from tvm_passes.operators.onnx_operator import OnnxOperator, onnx, own


def _binary(
    name: str,
    documentation: str,
    *imported: str | OnnxOperator,
    function: Callable[..., np.ndarray] | None = None,
    counted_as: CountedAs = CountedAs.OTHER,
) -> Operator:
    return Operator(
        name=name,
        documentation=documentation,
        role=Role.ELEMENTWISE,
        traits=frozenset([Trait.BROADCASTS]),
        encoding=Encoding(counted_as=counted_as),
        evaluate=None if function is None else by_elements(function),
        onnx=onnx(*imported),
    )


def _arithmetic(
    name: str,
    documentation: str,
    *imported: str | OnnxOperator,
    function: Callable[..., np.ndarray],
) -> Operator:
    counted_as = CountedAs.ARITHMETIC
    return _binary(name, documentation, *imported, function=function, counted_as=counted_as)


def _limit(
    name: str,
    documentation: str,
    *imported: str | OnnxOperator,
    function: Callable[..., np.ndarray],
) -> Operator:
    counted_as = CountedAs.CLIP
    return _binary(name, documentation, *imported, function=function, counted_as=counted_as)


ENTRIES = (
    _arithmetic("add", "x + y.", "Add", own("Sum", "arithmetic:total"), function=np.add),
    _binary("bitwise_and", "Bits that x and y both have.", "BitwiseAnd"),
    _binary("bitwise_or", "Bits that x or y has.", "BitwiseOr"),
    _binary("bitwise_xor", "Bits in which x and y differ.", "BitwiseXor"),
    _arithmetic(
        "divide",
        "x / y.",
        own("Div", rules=(rules.divisor,)),
        own("Mean", "arithmetic:mean"),
        function=np.divide,
    ),
    _binary("equal", "True where x = y.", own("Equal", "arithmetic:equal"), function=np.equal),
    _binary("floor_divide", "⌊x / y⌋.", function=np.floor_divide),
    _binary("floor_mod", "x - ⌊x / y⌋ · y."),
    _binary("greater", "True where x > y.", "Greater", function=np.greater),
    _binary("greater_equal", "True where x ≥ y.", "GreaterOrEqual", function=np.greater_equal),
    _binary("left_shift", "x · 2^y.", "BitShift"),
    _binary("less", "True where x < y.", "Less", function=np.less),
    _binary("less_equal", "True where x ≤ y.", "LessOrEqual", function=np.less_equal),
    _binary("logical_and", "True where x and y are.", "And", function=np.logical_and),
    _binary("logical_or", "True where x or y is.", "Or", function=np.logical_or),
    _binary("logical_xor", "True where one of x and y is.", "Xor"),
    _limit(
        "maximum", "The larger of x and y.", own("Max", "arithmetic:maximum"), function=np.maximum
    ),
    _limit(
        "minimum", "The smaller of x and y.", own("Min", "arithmetic:minimum"), function=np.minimum
    ),
    _binary(
        "mod",
        "Remainder of x / y.",
        own("Mod", rules=(rules.divisor, rules.float_remainder)),
        function=np.mod,
    ),
    _arithmetic("multiply", "x · y.", "Mul", function=np.multiply),
    _binary("not_equal", "True where x ≠ y.", function=np.not_equal),
    _binary(
        "power",
        "x^y.",
        own("Pow", "arithmetic:power"),
        function=np.power,
        counted_as=CountedAs.TRANSCENDENTAL,
    ),
    _binary("right_shift", "⌊x / 2^y⌋."),
    _arithmetic("subtract", "x - y.", "Sub", function=np.subtract),
    _binary("where", "x where the condition is true, y elsewhere.", "Where", function=np.where),
)
