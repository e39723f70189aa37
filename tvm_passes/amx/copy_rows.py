"""Copies of the rows that a task reads, with the zeros around them that a convolution's padding stands for."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from tvm import tirx

from tvm_passes.amx.geometry import Geometry
from tvm_passes.cpu import emit
from tvm_passes.cpu.emit import Buffer, TirExpr, bind

_LANES = 32
"""Elements of bfloat16 in a register."""


class RowCopy:
    """Emits the copy, one buffer for each half of the elements.

    A copy starts with the zeros left of the first row; what lies right of a row serves the next one as its left.
    """

    def __init__(
        self, geometry: Geometry, rows: int, source: Buffer, copies: Sequence[Buffer]
    ) -> None:
        self.geometry = geometry
        self.conv = geometry.convolution
        self.rows = rows
        self.source = source
        self.copies = copies
        self.before = 0 if geometry.picks else self.conv.pad_left * geometry.channels

    def emit(self, image: TirExpr, row: TirExpr) -> None:
        """Emit the copy of what the rows of results from `row` on read."""
        geometry, conv = self.geometry, self.conv
        for copy in self.copies:
            _fill(copy, 0, self.before)
        first = bind(row * conv.strides[0] - conv.pad_top)
        count = geometry.copied_rows(self.rows)
        with emit.serial(count) as index:
            y = bind(first + index * (conv.strides[0] if geometry.picks else 1))
            target = bind(self.before + index * geometry.row_stride)
            row_of = partial(self._row, image, y, target)
            if geometry.picks:
                row_of()
            else:
                blank = partial(self._blank, target, geometry.row_stride)
                emit.when(tirx.all(y >= 0, y < conv.in_height), row_of, blank)
        rest = self.copies[0].shape[0] - self.before - count * geometry.row_stride
        self._blank(self.before + count * geometry.row_stride, int(rest))

    def _blank(self, target: TirExpr, size: int) -> None:
        for copy in self.copies:
            _fill(copy, target, size)

    def _row(self, image: TirExpr, y: TirExpr, target: TirExpr) -> None:
        geometry, conv, view = self.geometry, self.conv, self.geometry.source
        start = bind(view.offset(image, 0, y, 0))
        pixels = conv.out_width if geometry.picks else conv.in_width
        step = conv.strides[1] if geometry.picks else 1
        dense = step == 1 and view.w == geometry.channels
        blocks = conv.in_channels // view.block
        for half, copy in enumerate(self.copies):
            if dense:
                self._move(copy, target, start, pixels * geometry.channels)
            else:
                with emit.serial(pixels) as x:
                    source = bind(start + half * view.low + x * (step * view.w))
                    place = bind(target + x * geometry.channels)
                    with emit.serial(blocks) as block:
                        where = source + block * view.chunk
                        self._move(copy, place + block * view.block, where, view.block)
                    if geometry.channels > conv.in_channels:
                        _fill(copy, target + x * geometry.channels + conv.in_channels, 1)
            used = pixels * geometry.channels
            _fill(copy, target + used, geometry.row_stride - used)

    def _move(self, copy: Buffer, target: TirExpr, source: TirExpr, size: int) -> None:
        """Copy elements, a register at a time."""
        full, rest = divmod(size, _LANES)
        if full:
            with emit.serial(full) as index:
                value = emit.load(self.source, source + index * _LANES, _LANES)
                emit.store(copy, value, target + index * _LANES, _LANES)
        if rest:
            value = emit.load(self.source, source + full * _LANES, rest)
            emit.store(copy, value, target + full * _LANES, rest)


def _fill(copy: Buffer, target: TirExpr, size: int) -> None:
    """Write zeros."""
    zero = tirx.const(0, "uint16")
    full, rest = divmod(size, _LANES)
    if full:
        with emit.serial(full) as index:
            emit.store(copy, emit.splat(zero, _LANES), target + index * _LANES, _LANES)
    if rest:
        emit.store(copy, emit.splat(zero, rest), target + full * _LANES, rest)
