"""Kernels that slide a window over each channel separately: pooling, depth-wise convolution.

Lanes are channels. As in :mod:`tvm_passes.cpu.convolution`, taps in the horizontal padding are
omitted from the generated code, and the bounds of a loop exclude those in the vertical padding.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, reduce
from itertools import groupby

import numpy as np
from tvm import tirx
from tvm.tirx.script import builder as T

from tvm_passes.cpu import emit
from tvm_passes.cpu.convolution import Convolution
from tvm_passes.cpu.emit import Accumulator, Buffer, TirExpr, bind, load, splat
from tvm_passes.cpu.epilogue import Epilogue
from tvm_passes.cpu.filters import Filters
from tvm_passes.cpu.host import VectorUnit
from tvm_passes.cpu.packing import emit_depthwise_packing
from tvm_passes.cpu.tiling import even_split
from tvm_passes.cpu.view import View
from tvm_passes.layout import BF16

_LOWEST = -math.inf
"""Start value of a maximum of float32."""
_LOWEST_INTEGER = emit.ORDERED_LOWEST
"""Start value of a maximum of bfloat16's bits as ordered integers."""
_SPARE = 8
"""Registers that remain for loaded values if columns are combined first."""
_EVEN_LINES = 8
"""Rows per thread above which an uneven distribution does not matter."""
_TASK_STEPS = 4096
"""Minimum number of vector operations of a task."""


@dataclass(frozen=True, kw_only=True)
class Window:
    """A sliding window; `shape` holds its extents, with one group per channel."""

    shape: Convolution
    """Extents, strides and padding."""
    kind: str
    """``max``, ``average`` (padding is not counted), ``average_padded`` or ``depthwise``."""
    source: View
    """Memory layout of the source."""
    result: View
    """Memory layout of the result."""
    unit: VectorUnit
    """Vector instructions and threads of the machine."""
    epilogue: Epilogue
    """Operators that are applied to the results."""
    filters: Filters | None = None
    """Positions of depth-wise weights computed at run time; None for constants, packed at build
    time.
    """

    @cached_property
    def lanes(self) -> int:
        """Channels of a vector; vectors do not cross blocks."""
        views = [self.source, self.result]
        blocks = [view.block for view in views if view.chunk != view.block * view.c]
        lanes = self.unit.lanes * (2 if self.as_integers else 1)
        return min([lanes, *blocks, *self.epilogue.blocks])

    @cached_property
    def as_integers(self) -> bool:
        """True if a maximum of bfloat16 is computed on their bits.

        Twice as many values fit a register, and none is converted.
        """
        views = [self.source, self.result]
        is_alone = self.epilogue.result is self.epilogue.anchor
        return self.kind == "max" and is_alone and all((v.storage, v.c) == (BF16, 1) for v in views)

    @property
    def dtype(self) -> str:
        """Type of the combined values."""
        return "int16" if self.as_integers else "float32"

    @property
    def start(self) -> int | float:
        """Neutral element of the combination."""
        if self.kind != "max":
            return 0.0
        return _LOWEST_INTEGER if self.as_integers else _LOWEST

    @cached_property
    def widths(self) -> tuple[int, ...]:
        """Pixels of each tile of a row."""
        widest = max(min(8, self.unit.registers // 2), 1)
        taps = self.shape.kernel[1]
        widest = max(1, min(widest, 64 // taps))
        return even_split(self.shape.out_width, -(-self.shape.out_width // widest))

    @cached_property
    def by_columns(self) -> bool:
        """True if each column of a tile's input is first combined over the kernel's rows.

        The pixels of the tile share the result.
        """
        stride, reach = self.shape.strides[1], (self.shape.kernel[1] - 1) * self.shape.dilation[1]
        columns = (max(self.widths) - 1) * stride + reach + 1
        return self.kind != "depthwise" and columns <= self.unit.registers - _SPARE

    @cached_property
    def bands(self) -> int:
        """Number of bands of rows that threads share; each traverses its channel vectors in turn.

        0 if bands would be uneven, or if all vectors of a row should precede the next row.
        """
        lines = self.shape.batch * self.shape.out_height
        uneven = lines % self.unit.threads and lines < _EVEN_LINES * self.unit.threads
        return (
            0
            if uneven or self.tasks < self.unit.threads or self._shares_lines
            else self.unit.threads
        )

    @property
    def _shares_lines(self) -> bool:
        """True if channel vectors share cache lines, and that matters.

        A depth-wise kernel loads other weights for each vector; only images beyond the second-level
        cache are worth that.
        """
        shape, source = self.shape, self.source
        if source.c != 1 or source.chunk != source.block:
            return False
        size = 2 if source.storage == BF16 else 4
        nbytes = size * shape.in_channels * shape.in_height * shape.in_width
        return self.kind != "depthwise" or nbytes > self.unit.l2_bytes * 3 // 4

    @property
    def vectors(self) -> int:
        """Number of channel vectors."""
        return -(-self.shape.out_channels // self.lanes)

    @property
    def padded_channels(self) -> int:
        """Number of channels, padded to whole vectors."""
        return self.vectors * self.lanes

    def pack(self, weights: np.ndarray) -> np.ndarray:
        """Pack depth-wise weights (C, 1, KH, KW) as (channel vector, row, column, lane), flat."""
        channels, _, kernel_h, kernel_w = weights.shape
        full = np.zeros((self.padded_channels, kernel_h, kernel_w), weights.dtype)
        full[:channels] = weights[:, 0]
        blocked = full.reshape(self.vectors, self.lanes, kernel_h, kernel_w).transpose(0, 2, 3, 1)
        return np.ascontiguousarray(blocked).reshape(-1)

    @property
    def reads_filters(self) -> bool:
        """True if run-time weights are read unpacked: packing costs as much as one use of each."""
        tiles = self.shape.batch * self.shape.out_height * len(self.widths)
        return self.filters is not None and tiles == 1

    @property
    def repacks(self) -> bool:
        """True if weights are packed in each run."""
        return self.filters is not None and not self.reads_filters

    @property
    def packed_size(self) -> int:
        """Number of elements of the packed weights."""
        return self.padded_channels * self.shape.kernel[0] * self.shape.kernel[1]

    @property
    def hints(self) -> Mapping[str, float]:
        """Blocking, as features for cost models."""
        return {
            "kernel_window": 1.0,
            "tasks": self.tasks,
            "tile_width": self.shape.out_width / len(self.widths),
            "lanes": self.lanes,
            "lanes_filled": self.shape.out_channels / self.padded_channels,
            "taps": self.shape.kernel[0] * self.shape.kernel[1],
            **({"repacked_bytes": 4.0 * self.packed_size} if self.repacks else {}),
        }

    @property
    def rows(self) -> int:
        """Number of rows of results, counted once for each channel vector."""
        return self.shape.batch * self.vectors * self.shape.out_height

    @property
    def tasks(self) -> int:
        """Number of independent tasks, each of sufficient size."""
        steps = self.shape.out_width * self.shape.kernel[0] * self.shape.kernel[1]
        per_task = min(max(_TASK_STEPS // steps, 1), -(-self.rows // self.unit.threads))
        return min(-(-self.rows // per_task), emit.MOST_SHARES)

    def emit(
        self,
        buffers: Mapping[int, Buffer],
        source: Buffer,
        weights: Buffer | None,
        out: Buffer,
    ) -> None:
        """Emit the kernel; `weights` are packed by :meth:`pack`, or at :attr:`filters`."""
        if self.filters is not None and self.repacks:
            packed = T.alloc_buffer((self.packed_size,), "float32")
            emit_depthwise_packing(self.shape, self.lanes, self.filters, weights, packed)
            weights = packed
        _Emitter(self, buffers, source, weights, out).emit()


class _Emitter:
    """Emitter of one kernel."""

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
        window = self.window
        if window.bands:
            self._bands()
            return
        with emit.parallel(window.tasks) as task:
            first, count = emit.share(window.rows, task, window.tasks)
            with emit.serial(count) as i:
                row = bind(first + i)
                self._line(bind(row // window.vectors), bind(row % window.vectors))

    def _bands(self) -> None:
        """Emit bands of rows, shared among threads as in :mod:`tvm_passes.cpu.nest`."""
        window = self.window
        lines = self.conv.batch * self.conv.out_height
        with emit.parallel(window.bands) as band:
            first, count = emit.share(lines, band, window.bands)
            with emit.serial(window.vectors) as vector, emit.serial(count) as i:
                self._line(bind(first + i), vector)

    def _line(self, line: TirExpr, vector: TirExpr) -> None:
        height = self.conv.out_height
        self._row(bind(line // height), vector, bind(line % height))

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
        taps = self._taps(first, width)
        if window.by_columns:
            places = sorted({place for pixel in taps for place, _ in pixel})
        else:
            places = list(range(width))
        accumulators = {place: Accumulator(lanes, window.dtype) for place in places}
        for accumulator in accumulators.values():
            accumulator.set(self._start(lanes))
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
            if window.by_columns:
                for place, accumulator in accumulators.items():
                    self._combine(accumulator, self._load(base, place, lanes))
            else:
                self._row_of_taps(accumulators, base, vector, kernel_row, taps, lanes)
        for pixel in range(width):
            value = self._result(accumulators, taps[pixel], pixel, lanes)
            value = self._scaled(value, high - low, len(taps[pixel]), lanes)
            at = (image, channel, y, left + pixel)
            if window.as_integers:
                emit.store(self.out, emit.bits_of(value, lanes), window.result.offset(*at), lanes)
                continue
            value = window.epilogue.evaluate(value, at, lanes, self.buffers)
            window.result.store(self.out, value, window.result.offset(*at), lanes)

    def _taps(self, first: int, width: int) -> list[list[tuple[int, int]]]:
        """Return the taps of each pixel of a tile that lie in the input.

        A tap is (position in the input row, kernel column).
        """
        conv = self.conv
        valid = [self._valid(first, width, column) for column in range(conv.kernel[1])]
        return [
            [
                (pixel * conv.strides[1] + column * conv.dilation[1], column)
                for column in range(conv.kernel[1])
                if pixel in valid[column]
            ]
            for pixel in range(width)
        ]

    def _row_of_taps(
        self,
        accumulators: Mapping[int, Accumulator],
        base: TirExpr,
        vector: TirExpr,
        kernel_row: TirExpr,
        taps: Sequence[Sequence[tuple[int, int]]],
        lanes: int,
    ) -> None:
        """Emit all taps of one kernel row."""
        for column in range(self.conv.kernel[1]):
            weight = None
            if self.weights is not None:
                weight = bind(self._weight(vector, kernel_row, column, lanes))
            for pixel, places in enumerate(taps):
                for place, of in places:
                    if of == column:
                        value = self._load(base, place, lanes)
                        value = value if weight is None else value * weight
                        self._combine(accumulators[pixel], value)

    def _weight(self, vector: TirExpr, row: TirExpr, column: int, lanes: int) -> TirExpr:
        """Load the weights of a vector of channels at one tap."""
        window, (kernel_h, kernel_w) = self.window, self.conv.kernel
        if window.filters is not None and window.reads_filters:
            return window.filters.load(self.weights, (vector * window.lanes, 0, row, column), lanes)
        tap = (vector * kernel_h + row) * kernel_w + column
        return load(self.weights, tap * window.lanes, lanes)

    def _load(self, base: TirExpr, place: int, lanes: int) -> TirExpr:
        source = self.window.source
        where = base + place * source.w
        if self.window.as_integers:
            return emit.ordered(emit.load(self.source, where, lanes), lanes)
        return source.load(self.source, where, lanes)

    def _combine(self, accumulator: Accumulator, value: TirExpr) -> None:
        accumulator.set(self._both(accumulator.value, value))

    def _both(self, left: TirExpr, right: TirExpr) -> TirExpr:
        # The effect of NaN depends on its position in the window, as in ONNX Runtime: any rule
        # would cost time.
        return T.max(left, right) if self.window.kind == "max" else left + right

    def _result(
        self,
        accumulators: Mapping[int, Accumulator],
        taps: Sequence[tuple[int, int]],
        pixel: int,
        lanes: int,
    ) -> TirExpr:
        """Return a pixel's value from the accumulators of its tile."""
        if not self.window.by_columns:
            return accumulators[pixel].value
        if not taps:
            return self._start(lanes)
        return reduce(self._both, (accumulators[place].value for place, _ in taps))

    def _start(self, lanes: int) -> TirExpr:
        return splat(tirx.const(self.window.start, self.window.dtype), lanes)

    def _scaled(self, value: TirExpr, rows: TirExpr, across: int, lanes: int) -> TirExpr:
        """Divide by the number of elements if the window averages."""
        if self.window.kind == "average_padded":
            return value * splat(1.0 / (self.conv.kernel[0] * self.conv.kernel[1]), lanes)
        if self.window.kind == "average":
            count = tirx.Cast("float32", rows * max(across, 1))
            return value * splat(tirx.const(1.0, "float32") / count, lanes)
        return value
