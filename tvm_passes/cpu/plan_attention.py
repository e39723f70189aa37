"""Plan of an attention, with the movements of its operands and its result."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np

from tvm_passes.attention import SCALES, factor_of
from tvm_passes.cpu.attention import Attention, AttentionTensor
from tvm_passes.cpu.attention_emitter import emit_attention
from tvm_passes.cpu.host import VectorUnit
from tvm_passes.cpu.plan import KernelPlan
from tvm_passes.cpu.subgraph import (
    KernelSubgraph,
    Literal,
    OperatorCall,
    Param,
    Value,
    is_plain,
    is_stored,
)
from tvm_passes.strides import Strided, dense, moved, operand_of, row_major


@dataclass(frozen=True, kw_only=True)
class _Moved:
    """A value that is a scaled and moved parameter."""

    param: Param
    """The parameter."""
    where: Strided
    """Positions of the value's elements in the parameter."""
    factor: float = 1.0
    """Factor of the elements."""


@dataclass(kw_only=True)
class _Form:
    """Parts of an attention, as they are read."""

    query: _Moved | None = None
    key: _Moved | None = None
    value: _Moved | None = None
    masks: list[Param] = field(default_factory=list)
    factors: list[Param] = field(default_factory=list)
    scale: float = 1.0


def plan_attention(subgraph: KernelSubgraph, unit: VectorUnit) -> KernelPlan | str:
    """Plan an attention; or return the operator that is in the way."""
    nodes = subgraph.nodes
    softmax = next((i for i, node in enumerate(nodes) if node.operator == "nn.softmax"), None)
    if softmax is None or not is_plain(subgraph) or is_stored(subgraph) or not subgraph.single:
        return subgraph.anchor
    form = _Form()
    moves: dict[Value, _Moved] = {
        param: _Moved(param=param, where=dense(param.shape)) for param in subgraph.params
    }
    scores: OperatorCall | None = None
    for place, node in enumerate(nodes):
        if scores is None and node.operator == "matmul":
            form.query, form.key = (moves.get(arg) for arg in node.args)
            scores = node
        elif place == softmax and scores is not None and node.args == (scores,):
            scores = node
        elif scores is not None and node.operator == "matmul" and place > softmax:
            form.value = moves.get(node.args[1])
            if node.args[0] is not scores or not _is_whole(form):
                return node.operator
            return _plan(subgraph, form, node, unit)
        elif scores is not None and scores in node.args and place < softmax:
            if not _read_step(form, node, scores):
                return node.operator
            scores = node
        elif not _read_move(moves, node):
            return node.operator
    return subgraph.anchor


def _is_whole(form: _Form) -> bool:
    """Return whether all operands are known, and the values are not scaled."""
    operands = (form.query, form.key, form.value)
    return all(operands) and form.value is not None and form.value.factor == 1.0


def _read_move(moves: dict[Value, _Moved], node: OperatorCall) -> bool:
    """Add the result of a movement or a scale to `moves`; returns whether it is one."""
    source = moves.get(node.args[0]) if node.args else None
    if source is None:
        return False
    factor = factor_of(node.call)
    if factor is not None and node.shape == source.where.shape:
        moves[node] = replace(source, factor=source.factor * factor)
        return True
    where = moved(node.call, source.where, node.shape)
    if where is not None:
        moves[node] = replace(source, where=where)
    return where is not None


def _read_step(form: _Form, node: OperatorCall, scores: OperatorCall) -> bool:
    """Read an operator on the scores: a scale, or a mask that is added; returns whether it is one.

    A scale after a mask would scale the mask as well.
    """
    if node.operator in SCALES:
        return _read_scale(form, node, scores)
    others = [arg for arg in node.args if arg is not scores]
    if node.operator != "add" or node.shape != scores.shape or len(others) != 1:
        return False
    (mask,) = others
    if isinstance(mask, Literal) and mask.array.size == 1:
        return True  # a softmax does not change if all scores do
    if not isinstance(mask, Param) or mask.dtype != "float32":
        return False
    form.masks.append(mask)
    return True


def _read_scale(form: _Form, node: OperatorCall, scores: OperatorCall) -> bool:
    """Read a scale of the scores by one number, or by one for each matrix."""
    factor = factor_of(node.call)
    if form.masks or node.args[0] is not scores:
        return False
    if factor is not None:
        form.scale *= factor
        return True
    given = node.args[1]
    if node.operator != "multiply" or not isinstance(given, Param) or given.shape[-2:] != (1, 1):
        return False
    form.factors.append(given)
    return True


def _plan(
    subgraph: KernelSubgraph, form: _Form, product: OperatorCall, unit: VectorUnit
) -> KernelPlan | str:
    """Make the plan, given all parts."""
    assert form.query is not None
    assert form.key is not None
    assert form.value is not None
    result = _result(subgraph, product)
    if result is None:
        return product.operator
    leading, rows = product.shape[:-2], product.shape[-2]
    depth, keys = form.key.where.shape[-2:]
    rank = len(product.shape)
    kernel = Attention(
        leading=leading,
        rows=rows,
        keys=keys,
        depth=depth,
        columns=product.shape[-1],
        scale=form.scale * form.query.factor * form.key.factor,
        query=_tensor(form.query),
        key=_tensor(form.key),
        value=_tensor(form.value),
        masks=tuple(_broadcast(mask, rank) for mask in form.masks),
        factors=tuple(_broadcast(factor, rank) for factor in form.factors),
        result=result,
        unit=unit,
    )
    turned = [mask for mask in form.masks if _is_turned(mask)]
    return KernelPlan(
        subgraph=subgraph,
        emit=partial(emit_attention, kernel),
        packs={mask.index: _turn for mask in turned},
        packed={mask.index: (_turned_shape(mask.shape), "float32") for mask in turned},
        hints=kernel.hints,
    )


def _tensor(operand: _Moved) -> AttentionTensor:
    return AttentionTensor(index=operand.param.index, where=operand.where)


def _result(subgraph: KernelSubgraph, product: OperatorCall) -> Strided | None:
    """Return the positions of the product's results, before the movements that follow it."""
    following = subgraph.nodes[subgraph.nodes.index(product) + 1 :]
    last: OperatorCall = following[-1] if following else product
    where: Strided | None = dense(last.shape)
    for position in range(len(following) - 1, -1, -1):
        before = following[position - 1] if position else product
        if where is None or following[position].args[:1] != (before,):
            return None
        where = operand_of(following[position].call, where, before.shape)
    return where


def _is_turned(mask: Param) -> bool:
    """Return whether a mask is constant and packed with its rows contiguous."""
    return mask.is_weight and len(mask.shape) > 1 and mask.shape[-2] > 1


def _turn(array: np.ndarray) -> np.ndarray:
    """Transpose each matrix."""
    return np.ascontiguousarray(array.swapaxes(-1, -2))


def _turned_shape(shape: Sequence[int]) -> tuple[int, ...]:
    return (*shape[:-2], shape[-1], shape[-2])


def _broadcast(mask: Param, rank: int) -> AttentionTensor:
    """Return a mask or factor with as many axes as the scores, and strides of 0 if broadcast."""
    strides = row_major(mask.shape)
    if _is_turned(mask):
        strides = (*(row_major(_turned_shape(mask.shape))[:-2]), 1, mask.shape[-2])
    missing = rank - len(mask.shape)
    shape = (1,) * missing + tuple(mask.shape)
    own = (0,) * missing + tuple(
        stride if size > 1 else 0 for size, stride in zip(mask.shape, strides, strict=True)
    )
    return AttentionTensor(index=mask.index, where=Strided(shape=shape, strides=own))
