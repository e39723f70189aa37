"""Emission of copies and fills of contiguous bfloat16 elements."""

from __future__ import annotations

from collections.abc import Sequence

from tvm import tirx

from tvm_passes.cpu import emit
from tvm_passes.cpu.emit import Buffer, TirExpr

_LANES = 32
"""Elements of a register."""


def move(source: Buffer, target: Buffer, start: TirExpr, place: TirExpr, size: int) -> None:
    """Emit the copy of `size` elements, from `start` of the source to `place` of the target."""
    full, rest = divmod(size, _LANES)
    if full:
        with emit.serial(full) as index:
            value = emit.load(source, start + index * _LANES, _LANES)
            emit.store(target, value, place + index * _LANES, _LANES)
    if rest:
        value = emit.load(source, start + full * _LANES, rest)
        emit.store(target, value, place + full * _LANES, rest)


def spread(
    source: Buffer,
    target: Buffer,
    start: TirExpr,
    place: TirExpr,
    picked: Sequence[int | None],
    size: int,
) -> None:
    """Emit the copy of selected elements to consecutive positions from `place` on.

    Each entry of `picked` is an index into the `size` elements from `start` on, or None for a zero.
    """
    value = emit.load(source, start, size)
    zeros = emit.splat(tirx.const(0, "uint16"), size)
    lanes = [tirx.const(size if lane is None else lane, "int32") for lane in picked]
    emit.store(target, tirx.Shuffle([value, zeros], lanes), place, len(lanes))


def fill(target: Buffer, place: TirExpr, size: int) -> None:
    """Emit `size` zeros from `place` of the target on."""
    zero = tirx.const(0, "uint16")
    full, rest = divmod(size, _LANES)
    if full:
        with emit.serial(full) as index:
            emit.store(target, emit.splat(zero, _LANES), place + index * _LANES, _LANES)
    if rest:
        emit.store(target, emit.splat(zero, rest), place + full * _LANES, rest)
