"""Maxima and minima in TVM's generated code that propagate NaN and keep infinities.

TVM's ``max(a, b)`` is ``a > b ? a : b``, whose result depends on the order if one operand is NaN.
Its maximum of a tensor with only -∞ is float32's lowest finite number.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import tvm_ffi
from tvm import s_tir, tirx
from tvm.ir import TensorLoad
from tvm.tirx import FloatImm

from tvm_passes.operators import NARROW_FLOATS

_FLOATS = NARROW_FLOATS | {"float32", "float64"}
"""Element types with NaN."""


def propagating(func: tirx.PrimFunc) -> tirx.PrimFunc:
    """Return `func` with NaN propagated by every maximum and minimum of two floats.

    ``max(x, 0)`` → ``0 if x < 0 else x``. Reductions stay unchanged: schedules recognise them by
    their form, and ONNX Runtime's maximum of a tensor with NaN depends on the order of elements as
    well.
    """
    stores = _reducing(func)

    def replaced(node: tirx.Max | tirx.Min) -> tirx.Expr:
        reduces = any(_loads(side, stores) for side in (node.a, node.b))
        return node if reduces or str(node.a.ty.dtype) not in _FLOATS else _chosen(node)

    body = tvm_ffi.structural_map(func.body, ((tirx.Max, tirx.Min), replaced))
    return func if body.same_as(func.body) else func.with_body(body)


def from_infinity(func: tirx.PrimFunc) -> tirx.PrimFunc:
    """Return `func` with reductions that start from an infinity instead of a largest finite number.

    The padding that they read changes likewise. TVM recognises reductions across work-items by
    their start value: do not use it for those.
    """
    padded: list[tirx.Var] = []

    def started(block: s_tir.SBlock) -> s_tir.SBlock:
        first = block.init
        if not isinstance(first, tirx.BufferStore) or not _is_limit(first.value):
            return block
        padded.extend(region.source for region in block.reads)
        return _with(block, init=_infinite_store(first))

    def filled(block: s_tir.SBlock) -> s_tir.SBlock:
        store = block.body
        if not isinstance(store, tirx.BufferStore) or not block.name_hint.startswith("pad_temp"):
            return block
        if not any(store.buffer.same_as(buffer) for buffer in padded):
            return block
        return _with(block, body=tvm_ffi.structural_map(store, (FloatImm, _infinite)))

    body = tvm_ffi.structural_map(func.body, (s_tir.SBlock, started))
    body = tvm_ffi.structural_map(body, (s_tir.SBlock, filled))
    return func if body.same_as(func.body) else func.with_body(body)


def _reducing(func: tirx.PrimFunc) -> Sequence[tirx.BufferStore]:
    """Return the stores of reductions."""
    found: list[tirx.BufferStore] = []

    def look(block: s_tir.SBlock) -> s_tir.SBlock:
        if block.init is not None and isinstance(block.body, tirx.BufferStore):
            found.append(block.body)
        return block

    tvm_ffi.structural_map(func.body, (s_tir.SBlock, look))
    return found


def _loads(expr: tirx.Expr, stores: Sequence[tirx.BufferStore]) -> bool:
    """Return whether `expr` is the value that one of `stores` has accumulated so far."""
    return isinstance(expr, TensorLoad) and any(
        expr.source.same_as(store.buffer) and tvm_ffi.structural_equal(expr.indices, store.indices)
        for store in stores
    )


def _chosen(node: tirx.Max | tirx.Min) -> tirx.Expr:
    """Return ``node`` without a preference for its second operand."""
    is_max = isinstance(node, tirx.Max)
    a, b = (node.b, node.a) if isinstance(node.a, FloatImm) else (node.a, node.b)
    if isinstance(b, FloatImm):
        return tirx.Select(a < b if is_max else a > b, b, a)
    return tirx.Select(tirx.any(a > b if is_max else a < b, tirx.isnan(a)), a, b)


def _is_limit(value: tirx.Expr) -> bool:
    """Return whether `value` is the lowest or the largest finite number of its type."""
    if not isinstance(value, FloatImm) or str(value.ty.dtype) not in _FLOATS:
        return False
    dtype = str(value.ty.dtype)
    return value.value in (tirx.min_value(dtype).value, tirx.max_value(dtype).value)


def _infinite(value: FloatImm) -> FloatImm:
    """Return the infinity of a limit's sign; other numbers unchanged."""
    if not _is_limit(value):
        return value
    return tirx.const(math.copysign(math.inf, value.value), str(value.ty.dtype))


def _infinite_store(store: tirx.BufferStore) -> tirx.BufferStore:
    """Return a store of the limit's infinity."""
    return tirx.BufferStore(store.buffer, _infinite(store.value), store.indices)


def _with(
    block: s_tir.SBlock, *, init: tirx.Stmt | None = None, body: tirx.Stmt | None = None
) -> s_tir.SBlock:
    """Return `block` with another initial statement or body."""
    return s_tir.SBlock(
        block.iter_vars,
        block.reads,
        block.writes,
        block.name_hint,
        body or block.body,
        init or block.init,
        block.alloc_buffers,
        block.match_buffers,
        block.annotations,
    )
