"""Code of kernels that slide a window over each channel separately."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import reduce
from itertools import groupby

from tvm import tirx
from tvm.tirx.script import builder as T

from tvm_passes.cpu import emit
from tvm_passes.cpu.emit import Accumulator, Buffer, TirExpr, bind, load, splat
from tvm_passes.cpu.window import Window


class WindowEmitter:
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
        """Emit the kernel."""
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
