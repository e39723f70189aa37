"""Element-wise operators: as separate primitives, and as post-ops of other primitives."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from tvm import relax
from tvm.ir import Call

from tvm_passes.ir import Constant, Expr, Var, op_name, static_shape
from tvm_passes.layout import PLAIN
from tvm_passes.onednn.graph import PostOp, Primitive, Storage, StoredTensor
from tvm_passes.onednn.scope import INTEGERS, Scope, scalar

_UNBOUNDED = 1e39
"""An infinite limit: JSON has no infinity, and this number overflows to it in float32."""


@dataclass(frozen=True)
class Eltwise:
    """One of oneDNN's element-wise functions, with its parameters."""

    algorithm: str
    """oneDNN's name of the function."""
    alpha: float = 0.0
    """First parameter; its meaning depends on the function."""
    beta: float = 0.0
    """Second parameter; its meaning depends on the function."""

    def post_op(self) -> PostOp:
        """Return the same function as a post-op."""
        return PostOp(kind="eltwise", algorithm=self.algorithm, alpha=self.alpha, beta=self.beta)


def _clip(call: Call) -> Eltwise:
    low, high = (float(argument.value) for argument in call.args[1:3])
    return Eltwise("clip", max(low, -_UNBOUNDED), min(high, _UNBOUNDED))


UNARY: Mapping[str, Callable[[Call], Eltwise]] = {
    "abs": lambda _: Eltwise("abs"),
    "clip": _clip,
    "exp": lambda _: Eltwise("exp"),
    "log": lambda _: Eltwise("log"),
    "negative": lambda _: Eltwise("linear", -1.0),
    "nn.elu": lambda call: Eltwise("elu", float(call.attrs.alpha)),
    "nn.gelu": lambda _: Eltwise("gelu_erf"),
    "nn.gelu_tanh": lambda _: Eltwise("gelu_tanh"),
    "nn.leakyrelu": lambda call: Eltwise("relu", float(call.attrs.alpha)),
    "nn.relu": lambda _: Eltwise("relu"),
    "nn.relu6": lambda _: Eltwise("clip", 0.0, 6.0),
    "nn.silu": lambda _: Eltwise("swish", 1.0),
    "round": lambda _: Eltwise("round"),
    "rsqrt": lambda _: Eltwise("pow", 1.0, -0.5),
    "sigmoid": lambda _: Eltwise("sigmoid"),
    "sqrt": lambda _: Eltwise("sqrt"),
    "square": lambda _: Eltwise("square"),
    "tanh": lambda _: Eltwise("tanh"),
}
"""oneDNN's function for each of Relax's element-wise operators of one operand."""

_SCALAR_RIGHT: Mapping[str, Callable[[float], Eltwise | None]] = {
    "add": lambda c: Eltwise("linear", 1.0, c),
    "subtract": lambda c: Eltwise("linear", 1.0, -c),
    "multiply": lambda c: Eltwise("linear", c),
    "divide": lambda c: Eltwise("linear", 1.0 / c) if c else None,
    "power": lambda c: Eltwise("pow", 1.0, c),
    "maximum": lambda c: Eltwise("clip", c, _UNBOUNDED),
    "minimum": lambda c: Eltwise("clip", -_UNBOUNDED, c),
}
"""oneDNN's function for an operator of two operands whose right one is the number `c`."""

_SCALAR_LEFT: Mapping[str, Callable[[float], Eltwise | None]] = {
    "add": _SCALAR_RIGHT["add"],
    "multiply": _SCALAR_RIGHT["multiply"],
    "maximum": _SCALAR_RIGHT["maximum"],
    "minimum": _SCALAR_RIGHT["minimum"],
    "subtract": lambda c: Eltwise("linear", -1.0, c),
    "divide": lambda c: Eltwise("pow", c, -1.0),
}
"""oneDNN's function for an operator of two operands whose left one is the number `c`."""

BINARY = {
    "add": "add",
    "subtract": "sub",
    "multiply": "mul",
    "divide": "div",
    "maximum": "max",
    "minimum": "min",
}
"""oneDNN's name of each of Relax's element-wise operators of two operands."""

COMMUTATIVE = frozenset({"add", "multiply", "maximum", "minimum"})
"""Operators of two operands that may be exchanged."""


def as_eltwise(value: Expr) -> tuple[Expr, Eltwise] | None:
    """Return the operand and the function if `value` is an element-wise function of one operand."""
    operator = op_name(value)
    if operator in UNARY:
        return value.args[0], UNARY[operator](value)
    if operator not in _SCALAR_RIGHT:
        return None
    left, right = value.args
    number = scalar(right)
    if number is not None and not isinstance(left, Constant):
        function = _SCALAR_RIGHT[operator](number)
        return (left, function) if function else None
    number = scalar(left)
    if number is not None and operator in _SCALAR_LEFT:
        function = _SCALAR_LEFT[operator](number)
        return (right, function) if function else None
    return None


def aligned(scope: Scope, expr: Expr, rank: int) -> StoredTensor:
    """Return `expr` with leading axes of one up to `rank`.

    The result has the sub-graph's layout, unless that would copy a weight or a constant.
    """
    tensor = scope.tensor(expr)
    shape = (1,) * (rank - len(tensor.shape)) + tensor.shape
    if shape != tensor.shape:
        tensor = scope.view(scope.plain(tensor), shape)
    wanted = scope.laid_out(tensor)
    lies_so = tensor.lies_as(wanted) or tensor.storage.kind not in ("weight", "const")
    return scope.convert(tensor, wanted) if lies_so else scope.convert(tensor, PLAIN)


def other_operand(scope: Scope, binding: relax.VarBinding, chain: Var) -> tuple[str, Expr] | None:
    """Return the operator and the other operand if `binding` combines `chain` with one.

    `binding` must be an operator of two operands whose result has the shape of `chain`.
    """
    operator = op_name(binding.value)
    if operator not in BINARY:
        return None
    left, right = binding.value.args
    if right is chain or right.same_as(chain):
        if operator not in COMMUTATIVE:
            return None
        left, right = right, left
    if not left.same_as(chain) or right.same_as(chain):
        return None
    if not scope.known(right) or static_shape(binding.var.ty) != static_shape(chain.ty):
        return None
    return operator, right


def as_binary_post_op(scope: Scope, binding: relax.VarBinding, chain: Var) -> PostOp | None:
    """Return `binding` as a binary post-op of the primitive that computes `chain`, or None."""
    found = other_operand(scope, binding, chain)
    if found is None:
        return None
    operator, right = found
    rank = len(static_shape(chain.ty))
    return PostOp(kind="binary", algorithm=BINARY[operator], tensor=aligned(scope, right, rank))


def keeping_nan(scope: Scope, function: Eltwise, source: StoredTensor) -> Primitive | None:
    """Return a node that computes `function` of `source` and propagates NaN.

    None if oneDNN's own function propagates NaN, or if `source` holds integers.

    oneDNN's Relu, Clip and exponential lose NaN. If one operand of its maximum or minimum is NaN,
    the result is the second operand. ``max(max(x, low), x)`` is therefore the larger of both, and
    NaN if x is NaN; the same holds for ``max(exp(x), x)``.
    """
    node = None
    if source.dtype in INTEGERS:
        return node
    if function.algorithm == "exp":
        node = limited(scope, "max", source, source)
        node.post_ops.insert(0, function.post_op())
        return node
    for algorithm, limit in _limits(function):
        if node is not None:
            scope.graph.nodes.append(node)
            source = node.output
        storage = Storage("const", 4, values=(limit,))
        bound = StoredTensor((1,) * len(source.shape), storage)
        node = limited(scope, algorithm, source, bound)
    return node


def limited(scope: Scope, algorithm: str, source: StoredTensor, bound: StoredTensor) -> Primitive:
    """Return a node for the maximum or minimum of `source` and `bound` that propagates NaN.

    See :func:`keeping_nan`.
    """
    result = scope.result(source.shape)
    node = scope.node("binary", [source, bound], result, {"algorithm": algorithm})
    node.post_ops.append(PostOp(kind="binary", algorithm=algorithm, tensor=source))
    return node


def _limits(function: Eltwise) -> Sequence[tuple[str, float]]:
    """Return the bounds of a function that limits its operand, each with ``max`` or ``min``."""
    if function.algorithm == "relu" and not function.alpha:
        return (("max", 0.0),)
    if function.algorithm != "clip":
        return ()
    ends = (("max", function.alpha), ("min", function.beta))
    return tuple(end for end in ends if abs(end[1]) < _UNBOUNDED)
