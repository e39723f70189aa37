"""Recognition of attention: ``softmax(q k · scale + mask) v``, with the movements around it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from tvm.ir import Call

from tvm_passes.arrays import array_of
from tvm_passes.ir import Constant, Expr, Var, is_tensor, op_name, static_shape
from tvm_passes.strides import Strided, dense, moved, operand_of

ANCHOR = "attention"
"""Anchor of a sub-graph that computes an attention."""
SCALES = ("multiply", "divide")
"""Operators that scale the scores by a number."""
_LEAST_ROWS = 8
"""Minimum number of rows: the kernel's vectors hold rows, and fewer leave most of them empty."""


class OperatorNode(Protocol):
    """A node of the partitioning."""

    @property
    def operator(self) -> str:
        """Name of the operator."""

    @property
    def consumers(self) -> Sequence[OperatorNode]:
        """Calls that read the value."""

    @property
    def escapes(self) -> bool:
        """True if a tuple or the function's result reads the value."""

    @property
    def group(self) -> int | None:
        """Group of the node; None if it is in none."""

    @property
    def position(self) -> int:
        """Position of the binding."""

    @property
    def var(self) -> Var:
        """Variable of the value."""

    @property
    def value(self) -> Call:
        """The call."""


@dataclass(frozen=True, kw_only=True)
class _Operand:
    """An operand of a product, as movements of another tensor."""

    moves: tuple[OperatorNode, ...]
    """Movements, first one first."""
    where: Strided
    """Positions of the operand's elements in the moved tensor."""


def match_attention(
    softmax: OperatorNode, producers: Mapping[Expr, OperatorNode]
) -> list[OperatorNode] | None:
    """Return the nodes of the attention around a softmax, in order of execution, or None.

    Movements of its operands are included if no other node reads them, and if the operands then
    have strides; movements of its result, if each is the only reader of the one before.

    Parameters
    ----------
    softmax
        The node of a softmax.
    producers
        OperatorNode of each variable.
    """
    if softmax.operator != "nn.softmax" or not _is_over_last_axis(softmax):
        return None
    product = _only_consumer(softmax)
    before = _scores(softmax, producers)
    if product is None or product.operator != "matmul" or before is None:
        return None
    if not product.value.args[0].same_as(softmax.var) or product.group is not None:
        return None
    core = [*before, softmax, product]
    reads = (*before[0].value.args, product.value.args[1])
    if not _fits(reads, softmax):
        return None
    inside = {node.position: node for node in core}
    inside |= {node.position: node for node in _moves_before(reads, producers, inside)}
    after = list(_moves_after(product))
    return [*(inside[position] for position in sorted(inside)), *after]


def _is_over_last_axis(softmax: OperatorNode) -> bool:
    rank = len(static_shape(softmax.var.ty))
    return int(softmax.value.attrs.axis) % rank == rank - 1 >= 1


def _only_consumer(node: OperatorNode) -> OperatorNode | None:
    return node.consumers[0] if len(node.consumers) == 1 and not node.escapes else None


def _scores(
    softmax: OperatorNode, producers: Mapping[Expr, OperatorNode]
) -> list[OperatorNode] | None:
    """Return the product of the scores and the operators up to the softmax, or None."""
    chain: list[OperatorNode] = []
    is_scaled = False
    expr, shape = softmax.value.args[0], static_shape(softmax.var.ty)
    while (node := producers.get(expr)) is not None:
        if node.group is not None or _only_consumer(node) is None:
            return None
        if static_shape(node.var.ty) != shape:
            return None
        chain.insert(0, node)
        if node.operator == "matmul":
            return chain
        following = scores_of(node.value, shape)
        # A mask before a scale would be scaled as well.
        if following is None or (is_scaled and node.operator == "add"):
            return None
        is_scaled = is_scaled or node.operator in SCALES
        expr = following
    return None


def scores_of(call: Call, shape: Sequence[int]) -> Expr | None:
    """Return the scores that `call` scales by a number or adds a mask to; None for other calls."""
    name = op_name(call)
    if name in SCALES:
        scales = factor_of(call) is not None or is_factor(call)
        return call.args[0] if scales else None
    if name != "add":
        return None
    left, right = call.args
    if left.same_as(right):
        return None
    if isinstance(right, Constant) or static_shape(right.ty) != tuple(shape):
        return left
    return right if isinstance(left, Constant) or static_shape(left.ty) != tuple(shape) else left


def is_factor(call: Call) -> bool:
    """Return whether `call` multiplies by a constant with one number for each matrix of scores."""
    if op_name(call) != "multiply" or not isinstance(call.args[1], Constant):
        return False
    shape = static_shape(call.args[1].ty)
    return len(shape) >= 2 and shape[-2:] == (1, 1)


def factor_of(call: Call) -> float | None:
    """Return the number that `call` multiplies its first operand by, or None."""
    value = number(call.args[1]) if op_name(call) in SCALES else None
    if value is None or op_name(call) == "multiply":
        return value
    return 1.0 / value if value else None


def number(expr: Expr) -> float | None:
    """Return the value of a constant with one element, or None."""
    if not isinstance(expr, Constant):
        return None
    array = array_of(expr)
    return float(array.reshape(-1)[0]) if array.size == 1 else None


def _fits(reads: Sequence[Expr], softmax: OperatorNode) -> bool:
    """Return whether the operands are float32 activations with many rows and equal leading axes."""
    shape = static_shape(softmax.var.ty)
    if shape[-2] < _LEAST_ROWS:
        return False
    for expr in (*reads, softmax.var):
        if isinstance(expr, Constant) or not is_tensor(expr) or str(expr.ty.dtype) != "float32":
            return False
        if static_shape(expr.ty)[:-2] != shape[:-2]:
            return False
    return True


def _moves_before(
    reads: Sequence[Expr], producers: Mapping[Expr, OperatorNode], core: Mapping[int, OperatorNode]
) -> Iterator[OperatorNode]:
    """Yield the movements of the operands that no node outside reads."""
    operands = [_operand(expr, producers, scales=place < 2) for place, expr in enumerate(reads)]
    # The kernel reads vectors along the last axis of the values.
    if operands[2].where.strides[-1] != 1:
        operands[2] = _Operand(moves=(), where=dense(static_shape(reads[2].ty)))
    inside = {**core, **{node.position: node for one in operands for node in one.moves}}
    changed = True
    while changed:
        outside = {
            position
            for position, node in inside.items()
            if position not in core
            and (node.escapes or any(reader.position not in inside for reader in node.consumers))
        }
        # A movement whose source is outside stays, but one whose result is read outside does not,
        # and then neither do the movements before it.
        changed = bool(outside)
        for position in outside:
            del inside[position]
    yield from (node for position, node in inside.items() if position not in core)


def _operand(expr: Expr, producers: Mapping[Expr, OperatorNode], *, scales: bool) -> _Operand:
    """Follow an operand back through movements, and scales if `scales`, while it has strides."""
    moves: tuple[OperatorNode, ...] = ()
    where = dense(static_shape(expr.ty))
    while (node := producers.get(expr)) is not None and node.group is None:
        source = node.value.args[0] if node.value.args else None
        if source is None or not is_tensor(source) or str(source.ty.dtype) != "float32":
            break
        found = _followed((node, *moves), scales=scales)
        if found is None:
            break
        moves, where, expr = (node, *moves), found, source
    return _Operand(moves=moves, where=where)


def _followed(moves: Sequence[OperatorNode], *, scales: bool) -> Strided | None:
    """Return the positions of the result of several movements of a dense tensor, or None."""
    where: Strided | None = dense(static_shape(moves[0].value.args[0].ty))
    for node in moves:
        if where is None:
            return None
        if not (scales and factor_of(node.value) is not None):
            where = moved(node.value, where, static_shape(node.var.ty))
    return where


def _moves_after(product: OperatorNode) -> Iterator[OperatorNode]:
    """Yield the movements of the result, as long as vectors of it stay contiguous."""
    found: list[OperatorNode] = []
    node = _only_consumer(product)
    while node is not None and node.group is None and _is_written(product, [*found, node]):
        found.append(node)
        node = _only_consumer(node)
    yield from found


def _is_written(product: OperatorNode, moves: Sequence[OperatorNode]) -> bool:
    """Return whether the product can write the result of movements directly."""
    where: Strided | None = dense(static_shape(moves[-1].var.ty))
    for node in reversed(moves):
        source = node.value.args[0]
        if where is None or not is_tensor(source):
            return False
        where = operand_of(node.value, where, static_shape(source.ty))
    return where is not None and where.strides[-1] == 1
