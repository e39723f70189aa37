"""Evaluation of element-wise operators on vectors in registers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from tvm import tirx
from tvm.tirx.script import builder as T

from tvm_passes.cpu import vector_math
from tvm_passes.cpu.emit import Buffer, TirExpr, bind, splat
from tvm_passes.cpu.subgraph import KernelSubgraph, Literal, OperatorCall, Param, Value
from tvm_passes.cpu.view import View, broadcast_view

Evaluate = Callable[[Sequence[TirExpr], OperatorCall, int], TirExpr]
"""Computes the result's vector from the operands' vectors, the operator and the number of lanes."""


def _scalar(node: OperatorCall, index: int) -> float:
    """Return a constant argument as a number."""
    argument = node.call.args[index]
    return float(argument.value if hasattr(argument, "value") else argument)


def _clip(args: Sequence[TirExpr], node: OperatorCall, lanes: int) -> TirExpr:
    return vector_math.clamp(args[0], _scalar(node, 1), _scalar(node, 2), lanes)


def _sloped(x: TirExpr, slope: TirExpr, lanes: int) -> TirExpr:
    x = bind(x)
    return tirx.Select(x < splat(0.0, lanes), x * slope, x)


def _leakyrelu(args: Sequence[TirExpr], node: OperatorCall, lanes: int) -> TirExpr:
    return _sloped(args[0], splat(float(node.attrs.alpha), lanes), lanes)


def _prelu(args: Sequence[TirExpr], _node: OperatorCall, lanes: int) -> TirExpr:
    return _sloped(args[0], args[1], lanes)


def _extremum(choose: Callable[[TirExpr, TirExpr], TirExpr]) -> Evaluate:
    """Make the evaluation of a maximum or minimum that propagates NaN.

    If an operand is NaN, `choose` returns its second operand, which must therefore be the one that
    can be NaN.
    """

    def evaluate(args: Sequence[TirExpr], node: OperatorCall, lanes: int) -> TirExpr:
        left, right = args
        if isinstance(node.args[1], Literal):
            left, right = right, left
        if isinstance(node.args[0], Literal) or isinstance(node.args[1], Literal):
            return choose(left, right)
        left = bind(left)
        return tirx.Select(T.isnan(left), left, choose(left, right))

    return evaluate


def _power(args: Sequence[TirExpr], node: OperatorCall, lanes: int) -> TirExpr:
    exponent = _exponent(node)
    return vector_math.power(args[0], exponent, lanes)


def _exponent(node: OperatorCall) -> float:
    """Return the constant exponent of a power; an unsupported one if it is not constant."""
    literal = node.args[1]
    return literal.array.item() if isinstance(literal, Literal) and literal.array.size == 1 else 0.1


def _unary(function: Callable[[TirExpr, int], TirExpr]) -> Evaluate:
    return lambda args, _node, lanes: function(args[0], lanes)


OPERATORS: Mapping[str, Evaluate] = {
    "abs": lambda a, _n, _l: T.abs(a[0]),
    "add": lambda a, _n, _l: a[0] + a[1],
    "clip": _clip,
    "divide": lambda a, _n, _l: a[0] / a[1],
    "erf": _unary(vector_math.erf),
    "exp": _unary(vector_math.exp),
    "maximum": _extremum(T.max),
    "minimum": _extremum(T.min),
    "multiply": lambda a, _n, _l: a[0] * a[1],
    "negative": lambda a, _n, lanes: splat(0.0, lanes) - a[0],
    "nn.gelu": _unary(vector_math.gelu),
    "nn.gelu_tanh": _unary(vector_math.gelu_tanh),
    "nn.leakyrelu": _leakyrelu,
    "nn.prelu": _prelu,
    "nn.relu": lambda a, _n, lanes: vector_math.at_least(a[0], 0.0, lanes),
    "nn.relu6": lambda a, _n, lanes: vector_math.clamp(a[0], 0.0, 6.0, lanes),
    "nn.silu": lambda a, _n, lanes: a[0] * vector_math.sigmoid(a[0], lanes),
    "power": _power,
    "rsqrt": lambda a, _n, lanes: splat(1.0, lanes) / T.sqrt(a[0]),
    "sigmoid": _unary(vector_math.sigmoid),
    "sqrt": lambda a, _n, _l: T.sqrt(a[0]),
    "square": lambda a, _n, _l: a[0] * a[0],
    "subtract": lambda a, _n, _l: a[0] - a[1],
    "tanh": _unary(vector_math.tanh),
}
"""Evaluation by operator; supporting another operator takes one line here."""


@dataclass(frozen=True, eq=False)
class Epilogue:
    """Operators that follow an anchor, computed on its result before that is stored.

    Without an anchor, it is a whole element-wise sub-graph.
    """

    anchor: OperatorCall | None
    """Operator whose result a kernel computes; None for an element-wise sub-graph."""
    result: Value
    """Result of the last operator."""
    views: Mapping[Param, View]
    """Memory layout of each operand; strides are 0 along axes over which it is broadcast."""
    uses: Mapping[Value, int]
    """Number of uses of each value."""

    @property
    def params(self) -> tuple[Param, ...]:
        """Parameters that the epilogue reads, by index."""
        return tuple(sorted(self.views, key=lambda param: param.index))

    @property
    def blocks(self) -> tuple[int, ...]:
        """Channel block of each operand in a packed layout."""
        return tuple(v.block for v in self.views.values() if v.c and v.chunk != v.block * v.c)

    def evaluate(
        self,
        anchor: TirExpr | None,
        at: tuple[TirExpr, TirExpr, TirExpr, TirExpr],
        lanes: int,
        buffers: Mapping[int, Buffer],
        axis: str = "c",
    ) -> TirExpr:
        """Compute the vector of `lanes` channels (or columns) from ``(n, c, h, w) = at`` on.

        Parameters
        ----------
        anchor
            The anchor's vector at this position.
        buffers
            Flat buffer of each parameter, by its index.
        axis
            Axis of the lanes, ``c`` or ``w``.
        """
        memo: dict[Value, TirExpr] = {}

        def value(item: Value) -> TirExpr:
            if item is self.anchor:
                return anchor
            if item not in memo:
                computed = self._compute(item, value, at, lanes, buffers, axis)
                memo[item] = bind(computed) if self.uses.get(item, 0) > 1 else computed
            return memo[item]

        if self.anchor is not None and self.uses.get(self.anchor, 0) > 1:
            anchor = bind(anchor)
        return value(self.result)

    def _compute(
        self,
        item: Value,
        value: Callable[[Value], TirExpr],
        at: tuple[TirExpr, TirExpr, TirExpr, TirExpr],
        lanes: int,
        buffers: Mapping[int, Buffer],
        axis: str,
    ) -> TirExpr:
        """Compute one value of the epilogue, given those before it."""
        if isinstance(item, Literal):
            return splat(float(item.array.reshape(-1)[0]), lanes)
        if isinstance(item, Param):
            where = self.views[item]
            return where.load(buffers[item.index], where.offset(*at), lanes, axis)
        return OPERATORS[item.operator]([value(arg) for arg in item.args], item, lanes)


def _supported(node: OperatorCall, full: Sequence[int], *, is_image: bool) -> bool:
    """Return whether an operator can be part of an epilogue of shape `full`."""
    if node.operator not in OPERATORS or node.dtype != "float32" or node.shape != tuple(full):
        return False
    if node.operator == "power":
        exponent = _exponent(node)
        return exponent * 4 == int(exponent * 4) and abs(exponent) <= 8
    if node.operator == "nn.prelu":
        return is_image and int(node.attrs.axis) % len(full) == 1
    return True


def _operand_view(
    node: OperatorCall, param: Param, full: Sequence[int], *, is_image: bool
) -> View | None:
    """Return the memory layout of an operator's operand for results of shape `full`, or None."""
    if param.dtype != "float32":
        return None
    shape = param.shape
    if node.operator == "nn.prelu" and param is node.args[1]:
        shape = (shape[0], *(1,) * (len(full) - 2))
    elif param.within is not None:
        return param.view if shape == tuple(full) else None
    return broadcast_view(shape, param.layout, full, is_image=is_image)


def read_epilogue(
    subgraph: KernelSubgraph, anchor: OperatorCall | None, *, is_volume: bool = False
) -> Epilogue | str:
    """Read the epilogue of `anchor`, or return the operator that cannot be part of one.

    Parameters
    ----------
    anchor
        The node that a kernel computes; None if the whole sub-graph is element-wise.
    is_volume
        True if rows count across planes; see :func:`tvm_passes.cpu.view.as_planes`.
    """
    nodes = subgraph.nodes if anchor is None else subgraph.nodes[1:]
    if not subgraph.single or (anchor is not None and subgraph.nodes[0] is not anchor):
        return subgraph.anchor
    full = subgraph.results[0].shape
    if anchor is not None and anchor.shape != full:
        return subgraph.nodes[-1].operator
    is_image = is_volume or len(full) == 4
    views: dict[Param, View] = {}
    uses: dict[Value, int] = {}
    for node in nodes:
        fits = _supported(node, full, is_image=is_image)
        for arg in node.args:
            uses[arg] = uses.get(arg, 0) + 1
            if isinstance(arg, Param):
                found = _operand_view(node, arg, full, is_image=is_image)
                fits = fits and found is not None and views.setdefault(arg, found) == found
        if not fits:
            return node.operator
    return Epilogue(anchor=anchor, result=subgraph.results[0], views=views, uses=uses)
