"""What a warp does with fragments of 16 x 16 at once, for schedules: factors in bfloat16, sums in float32.

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
FACTOR, SUM = "bfloat16", "float32"

_ALIGNMENT = 64
_A, _B, _C = (f"wmma.{name}" for name in ("matrix_a", "matrix_b", "accumulator"))
"""Where fragments lie."""

Buffer = Any
Matrix = tuple[str, str]
"""Where a matrix lies, and the type of its elements."""
Body = Callable[[Sequence[Buffer]], None]


def _function(matrices: Sequence[Matrix], body: Body, *, has_strides: bool) -> tirx.PrimFunc:
    """Reads all of `matrices` but the last, and writes that; with products, it reads it as well."""
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
            # In the order in which TVM finds them in a block that adds products up.
            read = (buffers[2], *buffers[:2]) if len(buffers) > 2 else buffers[:-1]
            T.reads(*(_all_of(buffer) for buffer in read))
            T.writes(_all_of(buffers[-1]))
            body(buffers)
    return builder.get()


def _all_of(buffer: Buffer) -> Any:
    return buffer[0:SIDE, 0:SIDE]


def _fragment(buffer: Buffer) -> tirx.Expr:
    """The number of a fragment within the buffer that holds several."""
    across = buffer.strides[0]
    row, column = buffer.elem_offset // across // SIDE, buffer.elem_offset % across // SIDE
    return row * (across // SIDE) + column


def _each(kinds: str, body: Callable[..., None]) -> None:
    """Call `body` with the indices of a loop nest; S: spatial, R: reduced."""
    with T.grid(*(SIDE for _ in kinds)) as loops, T.sblock("each"):
        body(*T.axis.remap(kinds, loops))


def _copies(buffers: Sequence[Buffer]) -> None:
    source, target = buffers
    _each("SS", lambda i, j: T.buffer_store(target, source[i, j], [i, j]))


def _loads(order: str) -> Body:
    def body(buffers: Sequence[Buffer]) -> None:
        source, fragment = buffers
        place = source.access_ptr("r", ptr_type=FACTOR)
        across = source.strides[0]
        at = (fragment.data, SIDE, SIDE, SIDE, _fragment(fragment))
        T.evaluate(T.tvm_load_matrix_sync(*at, place, across, order, dtype="void"))

    return body


def _stores(buffers: Sequence[Buffer]) -> None:
    fragment, target = buffers
    place = target.access_ptr("w", ptr_type=SUM)
    across = target.strides[0]
    at = (fragment.data, SIDE, SIDE, SIDE, _fragment(fragment))
    T.evaluate(T.tvm_store_matrix_sync(*at, place, across, "row_major", dtype="void"))


def _zeroes(buffers: Sequence[Buffer]) -> None:
    (sums,) = buffers
    _each("SS", lambda i, j: T.buffer_store(sums, tirx.const(0, SUM), [i, j]))


def _fills(buffers: Sequence[Buffer]) -> None:
    (sums,) = buffers
    at = (sums.data, SIDE, SIDE, SIDE, _fragment(sums))
    T.evaluate(T.tvm_fill_fragment(*at, tirx.const(0, SUM), dtype="void"))


def _multiplies(buffers: Sequence[Buffer]) -> None:
    """The second factor lies by columns."""
    a, b, sums = buffers

    def body(i: Any, j: Any, k: Any) -> None:
        product = tirx.Cast(SUM, a[i, k]) * tirx.Cast(SUM, b[j, k])
        T.buffer_store(sums, sums[i, j] + product, [i, j])

    _each("SSR", body)


def _multiplies_at_once(buffers: Sequence[Buffer]) -> None:
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
"""By name: the matrices, what is computed, and what computes it."""


@cache
def intrinsic(name: str) -> str:
    """What TVM knows an intrinsic as; registered when it is first asked for."""
    matrices, meaning, code = _INTRINSICS[name]
    known_as = f"layoutsel.wmma_bf16_{name}"
    TensorIntrin.register(
        known_as,
        _function(matrices, meaning, has_strides=False),
        _function(matrices, code, has_strides=True),
    )
    return known_as
