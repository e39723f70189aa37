"""How operators behave when sub-graphs are formed: the one table of fusion roles."""

from __future__ import annotations

from enum import Enum

UNARY = frozenset(
    [
        "abs",
        "acos",
        "acosh",
        "asin",
        "asinh",
        "atan",
        "atanh",
        "bitwise_not",
        "ceil",
        "clip",
        "cos",
        "cosh",
        "erf",
        "exp",
        "floor",
        "isfinite",
        "isinf",
        "isnan",
        "log",
        "logical_not",
        "negative",
        "nn.dropout",
        "nn.gelu",
        "nn.gelu_tanh",
        "nn.leakyrelu",
        "nn.prelu",
        "nn.relu",
        "nn.relu6",
        "nn.selu",
        "nn.silu",
        "nn.softplus",
        "round",
        "rsqrt",
        "sigmoid",
        "sign",
        "sin",
        "sinh",
        "sqrt",
        "square",
        "tan",
        "tanh",
        "trunc",
        "astype",
    ]
)
"""Element-wise operators of one activation."""

BINARY = frozenset(
    [
        "add",
        "bitwise_and",
        "bitwise_or",
        "bitwise_xor",
        "divide",
        "equal",
        "floor_divide",
        "floor_mod",
        "greater",
        "greater_equal",
        "left_shift",
        "less",
        "less_equal",
        "logical_and",
        "logical_or",
        "logical_xor",
        "maximum",
        "minimum",
        "mod",
        "multiply",
        "not_equal",
        "power",
        "right_shift",
        "subtract",
        "where",
    ]
)
"""Element-wise operators of several operands, with broadcasting."""

ELEMENTWISE = UNARY | BINARY

NARROW_FLOATS = frozenset(["float16", "bfloat16"])
"""Types that values are stored in, and that no sum may be taken in."""

QUANTIZATION = frozenset(["quantize", "dequantize"])
"""Between numbers and the integers that stand for them."""

MOVEMENT = frozenset("expand_dims flatten permute_dims reshape squeeze layout_transform".split())  # noqa: SIM905
"""Operators that only rename or reorder elements, one to one."""


class Role(Enum):
    """What an operator is to a sub-graph."""

    ELEMENTWISE = "elementwise"
    """Fuses behind an anchor, or chains with its like."""
    MOVEMENT = "movement"
    """Chains with its like; a copy at most."""
    ANCHOR = "anchor"
    """Starts a sub-graph of its own; so does every operator that is not listed."""


def role(operator: str) -> Role:
    """Role of an operator named without the ``relax.`` prefix."""
    if operator in ELEMENTWISE | QUANTIZATION:
        return Role.ELEMENTWISE
    return Role.MOVEMENT if operator in MOVEMENT else Role.ANCHOR
