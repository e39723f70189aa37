"""Geometries that read a copy of their rows: blocks of channels, or runs of whole kernel rows."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from tvm import tirx

from tvm_passes.amx.geometry import Geometry, InPlace, Run, Step
from tvm_passes.amx.stretches import fill, move, spread
from tvm_passes.amx.tiles import DEPTH
from tvm_passes.cpu import emit
from tvm_passes.cpu.convolution import Convolution
from tvm_passes.cpu.emit import Buffer, TirExpr, bind
from tvm_passes.cpu.view import View

_SPREAD = 64
"""Maximum number of elements that one shuffle produces."""


@dataclass(frozen=True, kw_only=True)
class _Copied(Geometry):
    """A geometry that reads a copy of its rows."""

    @cached_property
    def _zeros(self) -> int:
        """Pixels between two rows: right padding of the first and left padding of the second."""
        conv = self.convolution
        last = (conv.out_width - 1) * conv.strides[1] + (conv.kernel[1] - 1) * conv.dilation[1]
        return max(conv.pad_left, last - conv.pad_left - conv.in_width + 1, 0)

    def _reach(self, rows: int) -> int:
        """Return the number of padded source rows that `rows` rows of results read."""
        conv = self.convolution
        return (rows - 1) * conv.strides[0] + (conv.kernel[0] - 1) * conv.dilation[0] + 1


@dataclass(frozen=True, kw_only=True)
class Blocks(_Copied):
    """Kernels whose input channels fill blocks of :data:`~tvm_passes.amx.tiles.DEPTH`.

    The copy is (block of channels, remainder of the coordinates by the strides, row, pixel, half,
    channel).
    """

    @property
    def blocks(self) -> int:
        """Number of channel blocks."""
        return self.convolution.in_channels // DEPTH

    @property
    def pitch(self) -> int:
        """Pixels from one row to the next.

        Without strides, the zeros on the right of one row also pad the left of the next.
        """
        conv = self.convolution
        stride, reach = conv.strides[1], (conv.kernel[1] - 1) * conv.dilation[1]
        if stride == 1:
            return max(conv.in_width + self._zeros, conv.out_width)
        return conv.out_width + reach // stride

    @property
    def pixel_stride(self) -> int:
        """Elements of a pixel in a block: high and low halves."""
        return DEPTH * self.halves

    @property
    def depth(self) -> int:
        """Number of channels in a block."""
        return DEPTH

    def low(self, rows: int) -> int:
        """Offset of the low halves of a block: they follow its high halves."""
        return DEPTH

    @cached_property
    def _taps(self) -> list[tuple[int, int]]:
        """Offset (row, column) in the padded source of every kernel weight from the first one."""
        conv = self.convolution
        return [
            (y * conv.dilation[0], x * conv.dilation[1])
            for y in range(conv.kernel[0])
            for x in range(conv.kernel[1])
        ]

    @cached_property
    def _phases(self) -> list[tuple[int, int]]:
        """Remainders of coordinates by the strides that the kernel reads."""
        down, across = self.convolution.strides
        return list(dict.fromkeys((y % down, x % across) for y, x in self._taps))

    @property
    def steps(self) -> int:
        """Number of steps of the reduction: one per channel block and tap."""
        return self.blocks * len(self._taps)

    def _phase_rows(self, rows: int) -> int:
        """Return the number of rows in each phase of the copy."""
        return -(-self._reach(rows) // self.convolution.strides[0])

    def _phase_size(self, rows: int) -> int:
        """Return the number of elements in each phase of the copy."""
        reach = (self.convolution.kernel[1] - 1) * self.convolution.dilation[1] + 1
        return (self._phase_rows(rows) * self.pitch + reach) * self.pixel_stride

    def _block_size(self, rows: int) -> int:
        """Return the number of elements in each channel block of the copy."""
        return len(self._phases) * self._phase_size(rows)

    def copy_size(self, rows: int) -> int:
        """Return the number of elements of the copy."""
        return self.blocks * self._block_size(rows)

    def reduce(self, rows: int, step: Step, first: TirExpr, count: int) -> None:
        """Emit a loop over channel blocks with one step per tap (position of the kernel).

        The data of a block stay in the first-level cache while all taps read them.
        """
        down, across = self.convolution.strides
        with emit.serial(count) as block:
            base = bind((first + block) * self._block_size(rows))
            for number, (y, x) in enumerate(self._taps):
                phase = self._phases.index((y % down, x % across))
                pixel = y // down * self.pitch + x // across
                offset = phase * self._phase_size(rows) + pixel * self.pixel_stride
                step(base + offset, block * len(self._taps) + number)

    def arrange(self, weights: np.ndarray) -> np.ndarray:
        """Return weights (O, I, KH, KW) as (O, steps, depth): a step per channel block and tap."""
        out = weights.shape[0]
        blocked = weights.reshape(out, self.blocks, DEPTH, len(self._taps))
        return blocked.transpose(0, 1, 3, 2).reshape(out, self.steps, DEPTH)

    def copy(self, source: Buffer, target: Buffer, image: TirExpr, row: TirExpr, rows: int) -> None:
        """Emit the copy, row by row of each block and phase."""
        conv = self.convolution
        count, size = self._phase_rows(rows), self._phase_size(rows)
        with emit.serial(self.blocks) as block:
            for number, (down, across) in enumerate(self._phases):
                base = bind(block * self._block_size(rows) + number * size)
                first = bind(row * conv.strides[0] + (down - conv.pad_top))
                with emit.serial(count) as index:
                    y = bind(first + index * conv.strides[0])
                    place = bind(base + index * (self.pitch * self.pixel_stride))
                    self._copy_row(source, target, (image, block, y), place, across)
                end = base + count * self.pitch * self.pixel_stride
                fill(target, end, size - count * self.pitch * self.pixel_stride)

    def _copy_row(
        self,
        source: Buffer,
        target: Buffer,
        at: tuple[TirExpr, TirExpr, TirExpr],
        place: TirExpr,
        across: int,
    ) -> None:
        """Emit one row of a phase: zeros, pixels, zeros."""
        conv, view = self.convolution, self.source
        image, block, y = at
        stride, pixel = conv.strides[1], self.pixel_stride
        left = max(-(-(conv.pad_left - across) // stride), 0)
        inside = -(-(conv.in_width + conv.pad_left - across) // stride) - left
        inside = min(max(inside, 0), self.pitch - left)
        start = left * stride + across - conv.pad_left

        def pixels() -> None:
            fill(target, place, left * pixel)
            begin = bind(view.offset(image, block * DEPTH, y, start))
            if stride == 1 and view.w == pixel:
                move(source, target, begin, place + left * pixel, inside * pixel)
            else:
                with emit.serial(inside) as x:
                    for half in range(self.halves):
                        where = begin + x * (stride * view.w) + half * view.low
                        move(
                            source, target, where, place + (left + x) * pixel + half * DEPTH, DEPTH
                        )
            fill(target, place + (left + inside) * pixel, (self.pitch - left - inside) * pixel)

        def blank() -> None:
            fill(target, place, self.pitch * pixel)

        emit.when(tirx.all(y >= 0, y < conv.in_height), pixels, blank)


@dataclass(frozen=True, kw_only=True)
class Runs(_Copied):
    """Kernels whose input channels fill no blocks, mainly stems.

    The copy is (half, row, pixel, channel). A run of odd length gets an additional channel.
    """

    @cached_property
    def channels(self) -> int:
        """Number of channels per pixel of the copy."""
        conv = self.convolution
        run = conv.kernel[1] * conv.in_channels
        return conv.in_channels + int(run < DEPTH and run % 2)

    @property
    def by_rows(self) -> bool:
        """True if a tile stays within a row of pixels: for strided kernels."""
        return self.convolution.strides != (1, 1)

    @property
    def pitch(self) -> int:
        """Pixels from one row to the next.

        The zeros on the right of one row also pad the left of the next.
        """
        padded = self.convolution.in_width + self._zeros
        return padded if self.by_rows else max(padded, self.convolution.out_width)

    @property
    def pixel_stride(self) -> int:
        """Elements from one pixel of results to the next: the channels that a stride skips."""
        return self.channels * self.convolution.strides[1]

    @property
    def line_stride(self) -> int:
        """Elements from one row of results to the next."""
        return self.convolution.strides[0] * self.pitch * self.channels

    @property
    def _run(self) -> Run:
        return Run(size=self.convolution.kernel[1] * self.channels)

    @property
    def depth(self) -> int:
        """Number of elements of a step."""
        return self._run.depth

    @property
    def steps(self) -> int:
        """Number of steps: those of a run, for each kernel row."""
        return self.convolution.kernel[0] * self._run.steps

    def low(self, rows: int) -> int:
        """Return the offset of the low halves: they follow all high halves."""
        return self._half(rows)

    def _half(self, rows: int) -> int:
        """Return the number of elements of one half of the copy."""
        margin = self.convolution.kernel[1] + self.convolution.pad_left
        return (self._reach(rows) * self.pitch + margin) * self.channels

    def copy_size(self, rows: int) -> int:
        """Return the number of elements of both halves."""
        return self.halves * self._half(rows)

    def reduce(self, rows: int, step: Step, first: TirExpr, count: int) -> None:
        """Emit loops over kernel rows and the steps of their runs."""
        conv = self.convolution
        with emit.serial(conv.kernel[0]) as y, emit.serial(self._run.steps) as number:
            offset = y * (conv.dilation[0] * self.pitch * self.channels)
            step(offset + self._run.start(number), y * self._run.steps + number)

    def arrange(self, weights: np.ndarray) -> np.ndarray:
        """Return the weights as one run per kernel row."""
        out, channels, height, width = weights.shape
        wide = np.zeros((out, height, width, self.channels), weights.dtype)
        wide[..., :channels] = weights.transpose(0, 2, 3, 1)
        return self._run.arrange(wide.reshape(out, height, -1)).reshape(out, self.steps, -1)

    def copy(self, source: Buffer, target: Buffer, image: TirExpr, row: TirExpr, rows: int) -> None:
        """Emit the copy row by row, after the zeros to the left of the first row."""
        conv, line = self.convolution, self.pitch * self.channels
        before, count = conv.pad_left * self.channels, self._reach(rows)
        rest = self._half(rows) - before - count * line
        first = bind(row * conv.strides[0] - conv.pad_top)
        for half in range(self.halves):
            start = half * self._half(rows)
            fill(target, start, before)
            with emit.serial(count) as index:
                y = bind(first + index)
                place = bind(start + before + index * line)
                self._copy_row(source, target, (image, y), place, half)
            fill(target, start + before + count * line, rest)

    def _copy_row(
        self,
        source: Buffer,
        target: Buffer,
        at: tuple[TirExpr, TirExpr],
        place: TirExpr,
        half: int,
    ) -> None:
        conv, view = self.convolution, self.source
        image, y = at

        def pixels() -> None:
            begin = bind(view.offset(image, 0, y, 0) + half * view.low)
            if view.w == self.channels:
                move(source, target, begin, place, conv.in_width * self.channels)
            else:
                self._spread_pixels(source, target, begin, place)
            used = conv.in_width * self.channels
            fill(target, place + used, self.pitch * self.channels - used)

        def blank() -> None:
            fill(target, place, self.pitch * self.channels)

        emit.when(tirx.all(y >= 0, y < conv.in_height), pixels, blank)

    def _spread_pixels(
        self, source: Buffer, target: Buffer, begin: TirExpr, place: TirExpr
    ) -> None:
        """Emit the copy of pixels whose channels have another distance in the copy.

        As many pixels as registers hold are copied in one step, the remaining ones one by one.
        """
        conv, view = self.convolution, self.source
        at_once = _SPREAD // max(view.w, self.channels)
        groups = conv.in_width // at_once if at_once > 1 else 0
        if groups:
            picked = [
                pixel * view.w + channel if channel < conv.in_channels else None
                for pixel in range(at_once)
                for channel in range(self.channels)
            ]
            # The last pixel's other half, if there is one, may lie beyond the end of the tensor.
            size = (at_once - 1) * view.w + conv.in_channels
            with emit.serial(groups) as group:
                first = begin + group * (at_once * view.w)
                spread(source, target, first, place + group * len(picked), picked, size)
        with emit.serial(conv.in_width - groups * at_once) as rest:
            x = bind(groups * at_once + rest)
            pixel = bind(place + x * self.channels)
            move(source, target, begin + x * view.w, pixel, conv.in_channels)
            fill(target, pixel + conv.in_channels, self.channels - conv.in_channels)


def geometry_of(convolution: Convolution, source: View) -> Geometry | None:
    """Return the geometry of a convolution; None if tiles cannot follow it."""
    conv = convolution
    in_blocks = conv.in_channels % DEPTH == 0
    loadable = in_blocks or conv.in_channels >= DEPTH or conv.in_channels % 2 == 0
    if conv.pointwise and loadable and source.h == source.w * conv.in_width:
        return InPlace(convolution=conv, source=source)
    if in_blocks:
        return Blocks(convolution=conv, source=source)
    if conv.dilation[1] != 1 and conv.kernel[1] != 1:
        return None
    return Runs(convolution=conv, source=source)
