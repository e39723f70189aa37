"""Kernels that slide a window over each channel by itself: pooling and depthwise convolution.

Lanes are channels. As in :mod:`tvm_passes.cpu.convolution`, taps in the horizontal padding are left out when the code is
generated, and those in the vertical padding by the bounds of a loop.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby

import numpy as np
from tvm import tirx
from tvm.tirx.script import builder as T

from tvm_passes.cpu import emit
from tvm_passes.cpu.convolution import Convolution
from tvm_passes.cpu.emit import Accumulator, Buffer, TirExpr, bind, load, splat
from tvm_passes.cpu.epilogue import Epilogue
from tvm_passes.cpu.host import VectorUnit
from tvm_passes.cpu.tiling import even_split
from tvm_passes.cpu.view import View

_LOWEST = float(np.finfo("float32").min)
_TASK_STEPS = 4096
"""Vector operations that a task should at least hold."""


@dataclass(frozen=True, kw_only=True)
class Window:
    """A sliding window; `shape` holds its extents, with one group per channel."""

    shape: Convolution
    kind: str
    """``max``, ``average`` (padding left out of the count), ``average_padded`` or ``depthwise``."""
    source: View
    result: View
    unit: VectorUnit
    epilogue: Epilogue

    @cached_property
    def lanes(self) -> int:
        """Channels of a vector; vectors do not cross blocks."""
        views = [self.source, self.result]
        blocks = [view.block for view in views if view.chunk != view.block * view.c]
        return min([self.unit.lanes, *blocks, *self.epilogue.blocks])

    @cached_property
    def widths(self) -> tuple[int, ...]:
        """Pixels of each tile of a row."""
        widest = max(min(8, self.unit.registers // 2), 1)
        taps = self.shape.kernel[1]
        widest = max(1, min(widest, 64 // taps))
        return even_split(self.shape.out_width, -(-self.shape.out_width // widest))

    @property
    def vectors(self) -> int:
        """Vectors of channels."""
        return -(-self.shape.out_channels // self.lanes)

    @property
    def padded_channels(self) -> int:
        """Channels, filled up to whole vectors."""
        return self.vectors * self.lanes

    def pack(self, weights: np.ndarray) -> np.ndarray:
        """Depthwise weights (C, 1, KH, KW) as (vector of channels, row, column, lane), flat."""
        channels, _, kernel_h, kernel_w = weights.shape
        full = np.zeros((self.padded_channels, kernel_h, kernel_w), weights.dtype)
        full[:channels] = weights[:, 0]
        blocked = full.reshape(self.vectors, self.lanes, kernel_h, kernel_w).transpose(0, 2, 3, 1)
        return np.ascontiguousarray(blocked).reshape(-1)

    @property
    def packed_size(self) -> int:
        """Elements of the packed weights."""
        return self.padded_channels * self.shape.kernel[0] * self.shape.kernel[1]

    @property
    def hints(self) -> Mapping[str, float]:
        """The blocking, for cost models."""
        rows = self.shape.batch * self.vectors * self.shape.out_height
        return {
            "kernel_window": 1.0,
            "tasks": -(-rows // self.rows_per_task),
            "tile_width": self.shape.out_width / len(self.widths),
            "lanes": self.lanes,
            "lanes_filled": self.shape.out_channels / self.padded_channels,
            "taps": self.shape.kernel[0] * self.shape.kernel[1],
        }

    @property
    def rows_per_task(self) -> int:
        """Rows of one vector of channels that a task computes."""
        rows = self.shape.batch * self.vectors * self.shape.out_height
        steps = self.shape.out_width * self.shape.kernel[0] * self.shape.kernel[1]
        return min(max(_TASK_STEPS // steps, 1), -(-rows // self.unit.threads))

    def emit(
        self,
        buffers: Mapping[int, Buffer],
        source: Buffer,
        weights: Buffer | None,
        out: Buffer,
    ) -> None:
        """Emit the kernel; `weights` are those of :meth:`pack`."""
        _Emitter(self, buffers, source, weights, out).emit()


class _Emitter:
    def __init__(
        self,
        window: Window,
        buffers: Mapping[int, Buffer],
        source: Buffer,
        weights: Buffer | None,
        out: Buffer,
    ) -> None:
        self.window = window
        self.conv = window.shape
        self.buffers = buffers
        self.source = source
        self.weights = weights
        self.out = out

    def emit(self) -> None:
        conv, window = self.conv, self.window
        rows = conv.batch * window.vectors * conv.out_height
        per_task = window.rows_per_task
        tasks = -(-rows // per_task)
        with (
            emit.parallel(tasks) as task,
            emit.serial(T.min(per_task, rows - task * per_task)) as i,
        ):
            row = bind(task * per_task + i)
            y = bind(row % conv.out_height)
            vector = bind(row // conv.out_height % window.vectors)
            self._row(bind(row // (conv.out_height * window.vectors)), vector, y)

    def _row(self, image: TirExpr, vector: TirExpr, y: TirExpr) -> None:
        rest = self.conv.out_channels % self.window.lanes
        if not rest:
            self._tiles(image, vector, y, self.window.lanes)
        elif self.window.vectors == 1:
            self._tiles(image, vector, y, rest)
        else:
            emit.when(
                vector < self.window.vectors - 1,
                lambda: self._tiles(image, vector, y, self.window.lanes),
                lambda: self._tiles(image, vector, y, rest),
            )

    def _tiles(self, image: TirExpr, vector: TirExpr, y: TirExpr, lanes: int) -> None:
        left = 0
        places: list[tuple[int, int]] = []
        for width in self.window.widths:
            places.append((left, width))
            left += width

        def key(place: tuple[int, int]) -> tuple[object, ...]:
            columns = range(self.conv.kernel[1])
            return (place[1], *(self._valid(*place, column) for column in columns))

        for _, group in groupby(places, key):
            run = list(group)
            (first, width), count = run[0], len(run)
            with emit.serial(count) as index:
                self._tile(image, vector, y, bind(first + index * width), first, width, lanes)

    def _valid(self, left: int, width: int, column: int) -> tuple[int, ...]:
        conv = self.conv
        shift = column * conv.dilation[1] - conv.pad_left
        return tuple(
            pixel
            for pixel in range(width)
            if 0 <= (left + pixel) * conv.strides[1] + shift < conv.in_width
        )

    def _bounds(self, y: TirExpr) -> tuple[TirExpr, TirExpr]:
        conv = self.conv
        dilation = conv.dilation[0]
        top = y * conv.strides[0] - conv.pad_top
        low = T.max(0, (dilation - 1 - top) // dilation)
        high = T.min(conv.kernel[0], (conv.in_height - top + dilation - 1) // dilation)
        return bind(low), bind(high)

    def _tile(
        self,
        image: TirExpr,
        vector: TirExpr,
        y: TirExpr,
        left: TirExpr,
        first: int,
        width: int,
        lanes: int,
    ) -> None:
        conv, window = self.conv, self.window
        accumulators = [Accumulator(lanes) for _ in range(width)]
        start = _LOWEST if window.kind == "max" else 0.0
        for accumulator in accumulators:
            accumulator.set(splat(start, lanes))
        low, high = self._bounds(y)
        channel = bind(vector * window.lanes)
        plane = image * window.source.n + window.source.channel(channel)
        with emit.serial(high - low) as step:
            kernel_row = bind(step + low)
            row = y * conv.strides[0] + kernel_row * conv.dilation[0] - conv.pad_top
            base = bind(
                plane
                + row * window.source.h
                + (left * conv.strides[1] - conv.pad_left) * window.source.w
            )
            for column in range(conv.kernel[1]):
                valid = self._valid(first, width, column)
                self._tap(accumulators, base, vector, kernel_row, column, valid, lanes)
        for pixel, accumulator in enumerate(accumulators):
            count = [self._valid(first, width, column) for column in range(conv.kernel[1])]
            across = sum(pixel in valid for valid in count)
            value = self._scaled(accumulator.value, high - low, across, lanes)
            at = (image, channel, y, left + pixel)
            value = window.epilogue.evaluate(value, at, lanes, self.buffers)
            window.result.store(self.out, value, window.result.offset(*at), lanes)

    def _tap(
        self,
        accumulators: Sequence[Accumulator],
        base: TirExpr,
        vector: TirExpr,
        kernel_row: TirExpr,
        column: int,
        valid: Sequence[int],
        lanes: int,
    ) -> None:
        conv, window = self.conv, self.window
        weight = None
        if self.weights is not None:
            kernel_h, kernel_w = conv.kernel
            tap = (vector * kernel_h + kernel_row) * kernel_w + column
            weight = bind(load(self.weights, tap * window.lanes, lanes))
        for pixel in valid:
            x = pixel * conv.strides[1] + column * conv.dilation[1]
            value = window.source.load(self.source, base + x * window.source.w, lanes)
            accumulator = accumulators[pixel]
            if window.kind == "max":
                accumulator.set(T.max(accumulator.value, value))
            elif weight is not None:
                accumulator.set(accumulator.value + value * weight)
            else:
                accumulator.set(accumulator.value + value)

    def _scaled(self, value: TirExpr, rows: TirExpr, across: int, lanes: int) -> TirExpr:
        """The mean, where the window averages."""
        if self.window.kind == "average_padded":
            return value * splat(1.0 / (self.conv.kernel[0] * self.conv.kernel[1]), lanes)
        if self.window.kind == "average":
            count = tirx.Cast("float32", rows * max(across, 1))
            return value * splat(tirx.const(1.0, "float32") / count, lanes)
        return value
