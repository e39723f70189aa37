"""Tensor intrinsics on fragments of 16 x 16 in a warp: bfloat16 factors, float32 sums.

TVM has these intrinsics for float16 and int8, in a module that takes most of a minute to import.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

from tvm import tirx
from tvm.s_tir import TensorIntrin
from tvm.script.ir_builder import IRBuilder
from tvm.tirx.script import builder as T

SIDE = 16
"""Rows, columns and depth of a fragment."""
SHARED = "shared.dyn"
"""Memory scope of shared memory."""
FACTOR, SUM = "bfloat16", "float32"
"""Element types of factors and sums."""

_ALIGNMENT = 64
"""Alignment of fragments, bytes."""
_A, _B, _C = (f"wmma.{name}" for name in ("matrix_a", "matrix_b", "accumulator"))
"""Memory scopes of fragments."""

Buffer = Any
"""A TIR buffer."""
Matrix = tuple[str, str]
"""Memory scope of a matrix, and its element type."""
Body = Callable[[Sequence[Buffer]], None]
"""Emits the statements of an intrinsic over its buffers."""


def _function(matrices: Sequence[Matrix], body: Body, *, has_strides: bool) -> tirx.PrimFunc:
    """Make the function of an intrinsic, which reads all of `matrices` except the last, its result.

    A product also reads its result.
    """
    with IRBuilder() as builder, T.prim_func(s_tir=True):
        handles = [T.arg(f"p{index}", T.handle()) for index in range(len(matrices))]
        buffers = []
        for handle, (scope, dtype) in zip(handles, matrices, strict=True):
            strides = [tirx.Var(f"stride{n}", "int32") for n in (0, 1)] if has_strides else None
            buffers.append(
                T.match_buffer(
                    handle,
                    (SIDE, SIDE),
                    dtype,
                    strides=strides,
                    scope=scope,
                    align=_ALIGNMENT,
                    offset_factor=SIDE,
                )
            )
        with T.sblock("root"):
            # The order in which TVM finds them in a block that accumulates products.
            read = (buffers[2], *buffers[:2]) if len(buffers) > 2 else buffers[:-1]
            T.reads(*(_all_of(buffer) for buffer in read))
            T.writes(_all_of(buffers[-1]))
            body(buffers)
    return builder.get()


def _all_of(buffer: Buffer) -> Any:
    return buffer[0:SIDE, 0:SIDE]


def _fragment(buffer: Buffer) -> tirx.Expr:
    """Return the index of a fragment in a buffer that holds several."""
    across = buffer.strides[0]
    row, column = buffer.elem_offset // across // SIDE, buffer.elem_offset % across // SIDE
    return row * (across // SIDE) + column


def _each(kinds: str, body: Callable[..., None]) -> None:
    """Call `body` with the indices of a loop nest; `kinds` are S (spatial) or R (reduced)."""
    with T.grid(*(SIDE for _ in kinds)) as loops, T.sblock("each"):
        body(*T.axis.remap(kinds, loops))


def _copies(buffers: Sequence[Buffer]) -> None:
    """Emit the meaning of a load or store: a copy."""
    source, target = buffers
    _each("SS", lambda i, j: T.buffer_store(target, source[i, j], [i, j]))


def _loads(order: str) -> Body:
    """Emit the load of a fragment whose rows or columns are contiguous."""

    def body(buffers: Sequence[Buffer]) -> None:
        source, fragment = buffers
        place = source.access_ptr("r", ptr_type=FACTOR)
        across = source.strides[0]
        at = (fragment.data, SIDE, SIDE, SIDE, _fragment(fragment))
        T.evaluate(T.tvm_load_matrix_sync(*at, place, across, order, dtype="void"))

    return body


def _stores(buffers: Sequence[Buffer]) -> None:
    """Emit the store of a fragment."""
    fragment, target = buffers
    place = target.access_ptr("w", ptr_type=SUM)
    across = target.strides[0]
    at = (fragment.data, SIDE, SIDE, SIDE, _fragment(fragment))
    T.evaluate(T.tvm_store_matrix_sync(*at, place, across, "row_major", dtype="void"))


def _zeroes(buffers: Sequence[Buffer]) -> None:
    """Emit the meaning of a fill: zeros."""
    (sums,) = buffers
    _each("SS", lambda i, j: T.buffer_store(sums, tirx.const(0, SUM), [i, j]))


def _fills(buffers: Sequence[Buffer]) -> None:
    """Emit the fill of a fragment."""
    (sums,) = buffers
    at = (sums.data, SIDE, SIDE, SIDE, _fragment(sums))
    T.evaluate(T.tvm_fill_fragment(*at, tirx.const(0, SUM), dtype="void"))


def _multiplies(buffers: Sequence[Buffer]) -> None:
    """Emit the meaning of a product; the second factor is stored by columns."""
    a, b, sums = buffers

    def body(i: Any, j: Any, k: Any) -> None:
        product = tirx.Cast(SUM, a[i, k]) * tirx.Cast(SUM, b[j, k])
        T.buffer_store(sums, sums[i, j] + product, [i, j])

    _each("SSR", body)


def _multiplies_at_once(buffers: Sequence[Buffer]) -> None:
    """Emit the product of fragments."""
    a, b, sums = ((buffer.data, _fragment(buffer)) for buffer in buffers)
    T.evaluate(T.tvm_mma_sync(*sums, *a, *b, *sums, dtype="void"))


_INTRINSICS: Mapping[str, tuple[Sequence[Matrix], Body, Body]] = {
    "load_a": (((SHARED, FACTOR), (_A, FACTOR)), _copies, _loads("row_major")),
    "load_b": (((SHARED, FACTOR), (_B, FACTOR)), _copies, _loads("col_major")),
    "multiply": (
        ((_A, FACTOR), (_B, FACTOR), (_C, SUM)),
        _multiplies,
        _multiplies_at_once,
    ),
    "fill": (((_C, SUM),), _zeroes, _fills),
    "store": (((_C, SUM), (SHARED, SUM)), _copies, _stores),
}
"""Matrices of each intrinsic by name, with the emitter of its meaning and of its code."""


@cache
def intrinsic(name: str) -> str:
    """Register an intrinsic at its first use; returns TVM's name of it."""
    matrices, meaning, code = _INTRINSICS[name]
    known_as = f"layoutsel.wmma_bf16_{name}"
    TensorIntrin.register(
        known_as,
        _function(matrices, meaning, has_strides=False),
        _function(matrices, code, has_strides=True),
    )
    return known_as
