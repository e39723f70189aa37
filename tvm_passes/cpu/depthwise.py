"""Depth-wise convolution of plain images, with the contiguous pixels of a row as lanes.

:mod:`tvm_passes.cpu.window` uses channels as lanes, which it would have to gather one by one from a
plain layout.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import groupby
from math import prod

from tvm import tirx

from tvm_passes.cpu import emit
from tvm_passes.cpu.convolution import Convolution
from tvm_passes.cpu.emit import Accumulator, Buffer, TirExpr, across, bind, load, splat
from tvm_passes.cpu.epilogue import Epilogue
from tvm_passes.cpu.host import VectorUnit
from tvm_passes.cpu.taps import enter_taps, reach_at
from tvm_passes.cpu.view import View

_TASK_STEPS = 4096
"""Minimum number of vector operations of a task."""
_ACCUMULATORS = 8
"""Number of independent sums that hide the latency of a multiply-add."""
_VECTORS = 4
"""Vectors of a tile along a row."""
_WIDEST_KERNEL = 32
"""Maximum number of kernel columns; padding requires separate code for each."""
_LARGEST_STRIDE = 4
"""Maximum stride at which pixels are selected from a contiguous load."""


@dataclass(frozen=True, kw_only=True)
class _Tile:
    """Vectors of pixels of a row."""

    left: TirExpr
    """First pixel of the tile."""
    starts: tuple[int, ...]
    """First pixel of each vector, relative to `left`."""
    valid: tuple[tuple[range, ...], ...]
    """Pixels whose tap lies in the input, by vector and kernel column."""


@dataclass(frozen=True, kw_only=True)
class Depthwise:
    """A convolution whose filters each read one channel, in plain layouts."""

    shape: Convolution
    """Shape of the convolution."""
    source: View
    """Memory layout of the source."""
    weights: View
    """Memory layout of the weights (channels, 1, kernel rows, kernel columns).

    The weights may be constant or computed at run time.
    """
    result: View
    """Memory layout of the result."""
    unit: VectorUnit
    """Vector instructions and threads of the machine."""
    epilogue: Epilogue
    """Operators that are applied to the sums."""

    @property
    def fits(self) -> bool:
        """True if this kernel computes such a convolution, and its pixels are contiguous."""
        shape, views = self.shape, (self.source, self.result)
        few = shape.group_in == 1 < shape.groups and 4 * shape.group_out <= self.unit.lanes
        plain = all(view.w == 1 and not view.storage for view in views)
        return few and plain and not self.weights.storage and shape.kernel[1] <= _WIDEST_KERNEL

    @property
    def is_narrow(self) -> bool:
        """True if rows of pixels fill less than half a vector."""
        return not self.is_product and 2 * self.shape.out_width < self.unit.lanes

    @property
    def is_product(self) -> bool:
        """True if the kernel covers the whole image: each result is a product of two vectors."""
        shape = self.shape
        flat = self.source.h == shape.in_width and self.weights.h == shape.in_width
        whole = shape.kernel == (shape.in_height, shape.in_width)
        inside = all(axis.is_inside for axis in shape.row_axes) and shape.pad_left == 0
        dense = all(axis.dilation == 1 for axis in shape.row_axes) and shape.dilation[1] == 1
        return (shape.out_height, shape.out_width) == (1, 1) and flat and whole and inside and dense

    @property
    def lanes(self) -> int:
        """Pixels of a vector: a whole register, or a fraction by a power of two.

        The last vector of a row overlaps its predecessor.
        """
        return min(self.unit.lanes, 1 << self.shape.out_width.bit_length() - 1)

    @property
    def steps(self) -> int:
        """Vector operations of one row of results."""
        vectors = -(-self.shape.out_width // self.lanes)
        taps = prod(self.shape.kernel)
        return -(-taps // self.unit.lanes) if self.is_product else vectors * taps

    @property
    def rows(self) -> int:
        """Total number of rows of results."""
        return self.shape.batch * self.shape.out_channels * self.shape.out_height

    @property
    def tasks(self) -> int:
        """Number of independent tasks, each of sufficient size."""
        per_task = min(max(_TASK_STEPS // self.steps, 1), -(-self.rows // self.unit.threads))
        return min(-(-self.rows // per_task), emit.MOST_SHARES)

    @property
    def hints(self) -> Mapping[str, float]:
        """Blocking, as features for cost models."""
        shape, lanes = self.shape, self.lanes
        return {
            "kernel_rows": 1.0,
            "tasks": self.tasks,
            "lanes": lanes,
            "lanes_filled": shape.out_width / (lanes * -(-shape.out_width // lanes)),
            "taps": prod(shape.kernel),
        }

    @cached_property
    def runs(self) -> tuple[tuple[_Tile, int], ...]:
        """Consecutive tiles of a row with the same code, and their number."""
        lanes, width = self.lanes, self.shape.out_width
        lefts = [min(left, width - lanes) for left in range(0, width, lanes)]
        tiles = []
        for first in range(0, len(lefts), _VECTORS):
            part = lefts[first : first + _VECTORS]
            starts = tuple(left - part[0] for left in part)
            tiles.append(_Tile(left=part[0], starts=starts, valid=tuple(map(self._valid, part))))
        runs = groupby(tiles, key=lambda tile: (tile.starts, tile.valid))
        return tuple((tile, 1 + len(rest)) for tile, *rest in (list(run) for _, run in runs))

    def _valid(self, left: int) -> tuple[range, ...]:
        """Return the pixels of the vector at `left` with a tap in the input, by kernel column."""
        shape = self.shape
        found = []
        for column in range(shape.kernel[1]):
            shift = column * shape.dilation[1] - shape.pad_left
            inside = [
                pixel
                for pixel in range(self.lanes)
                if 0 <= (left + pixel) * shape.strides[1] + shift < shape.in_width
            ]
            found.append(range(inside[0], inside[-1] + 1) if inside else range(0))
        return tuple(found)

    def emit(
        self, buffers: Mapping[int, Buffer], source: Buffer, weights: Buffer, out: Buffer
    ) -> None:
        """Emit the kernel."""
        _Emitter(self, buffers, source, weights, out).emit()


@dataclass(frozen=True)
class _Emitter:
    """Emitter of one kernel."""

    kernel: Depthwise
    buffers: Mapping[int, Buffer]
    source: Buffer
    weights: Buffer
    out: Buffer

    def emit(self) -> None:
        """Emit the kernel; threads share the rows of results."""
        kernel, shape = self.kernel, self.kernel.shape
        with emit.parallel(kernel.tasks) as task:
            first, count = emit.share(kernel.rows, task, kernel.tasks)
            with emit.serial(count) as offset:
                row = bind(first + offset)
                plane = bind(row // shape.out_height)
                image, channel = bind(plane // shape.out_channels), bind(plane % shape.out_channels)
                at = (image, channel, bind(row % shape.out_height))
                if kernel.is_product:
                    self._product(at)
                else:
                    self._row(at)

    def _row(self, at: tuple[TirExpr, TirExpr, TirExpr]) -> None:
        """Emit one row of results."""
        for tile, count in self.kernel.runs:
            with emit.serial(count) as index:
                left = bind(tile.left + index * (_VECTORS * self.kernel.lanes))
                self._tile(at, replace(tile, left=left))

    def _tile(self, at: tuple[TirExpr, TirExpr, TirExpr], tile: _Tile) -> None:
        """Emit one tile of a row."""
        kernel, shape = self.kernel, self.kernel.shape
        image, channel, y = at
        columns = shape.kernel[1]
        ways = max(min(columns, _ACCUMULATORS // len(tile.starts)), 1)
        sums = [[Accumulator(kernel.lanes) for _ in range(ways)] for _ in tile.starts]
        for accumulators in sums:
            for one in accumulators:
                one.zero()
        reach = reach_at(shape.row_axes, y)
        with ExitStack() as loops:
            kernel_row, row = enter_taps(reach, loops)
            plane = (image, channel // shape.group_out, row)
            weights = bind(kernel.weights.offset(channel, 0, kernel_row, 0))
            for column in range(columns):
                weight = bind(self.weights[weights + column * kernel.weights.w])
                for vector, accumulators in enumerate(sums):
                    pixels = tile.valid[vector][column]
                    if pixels:
                        one = accumulators[column % ways]
                        value = self._pixels(plane, tile, vector, column)
                        one.set(one.value + value * splat(weight, one.lanes))
        for start, accumulators in zip(tile.starts, sums, strict=True):
            total = sum((one.value for one in accumulators[1:]), start=accumulators[0].value)
            self._finish((image, channel, y, bind(tile.left + start)), total, kernel.lanes)

    def _pixels(
        self, plane: tuple[TirExpr, TirExpr, TirExpr], tile: _Tile, vector: int, column: int
    ) -> TirExpr:
        """Emit the inputs of a vector of pixels at one kernel column, with zeros for padding."""
        shape, source, lanes = self.kernel.shape, self.kernel.source, self.kernel.lanes
        image, channel, row = plane
        pixels = tile.valid[vector][column]
        loaded = self._loaded(pixels)
        first = tile.left + (tile.starts[vector] + loaded.start)
        x = first * shape.strides[1] + (column * shape.dilation[1] - shape.pad_left)
        begin = bind(source.offset(image, channel, row, x))
        value = _every(self.source, begin, len(loaded), shape.strides[1])
        if len(pixels) == lanes:
            return value
        zero = splat(0.0, lanes)
        chosen = [
            lane - loaded.start if lane in pixels else len(loaded) + lane for lane in range(lanes)
        ]
        return tirx.Shuffle([bind(value), zero], [tirx.const(one, "int32") for one in chosen])

    def _loaded(self, pixels: range) -> range:
        """Choose the pixels to load: a whole vector, which is fast, if the row is long enough."""
        shape, lanes = self.kernel.shape, self.kernel.lanes
        reach = lanes * shape.strides[1]
        if len(pixels) == lanes or reach > shape.in_width:
            return pixels
        return (
            range(pixels.start, pixels.start + lanes)
            if pixels.start
            else range(pixels.stop - lanes, pixels.stop)
        )

    def _product(self, at: tuple[TirExpr, TirExpr, TirExpr]) -> None:
        """Emit the sum over a whole plane, vector by vector."""
        kernel, shape, lanes = self.kernel, self.kernel.shape, self.kernel.unit.lanes
        image, channel, y = at
        inputs = bind(kernel.source.offset(image, channel // shape.group_out, 0, 0))
        weights = bind(kernel.weights.offset(channel, 0, 0, 0))
        full, rest = divmod(prod(shape.kernel), lanes)
        parts = []

        def product(first: TirExpr, count: int) -> TirExpr:
            return load(self.source, inputs + first, count) * load(
                self.weights, weights + first, count
            )

        if full:
            sums = [Accumulator(lanes) for _ in range(min(full, _VECTORS))]
            for one in sums:
                one.zero()
            with emit.serial(full // len(sums)) as group:
                for index, one in enumerate(sums):
                    first = bind((group * len(sums) + index) * lanes)
                    one.set(one.value + product(first, lanes))
            for vector in range(full - full % len(sums), full):
                sums[0].set(sums[0].value + product(vector * lanes, lanes))
            total = sum((one.value for one in sums[1:]), start=sums[0].value)
            parts.append(across(bind(total), lanes, _add))
        if rest:
            parts.append(across(bind(product(full * lanes, rest)), rest, _add))
        self._finish((image, channel, y, 0), bind(sum(parts[1:], start=parts[0])), 1)

    def _finish(
        self, at: tuple[TirExpr, TirExpr, TirExpr, TirExpr], total: TirExpr, width: int
    ) -> None:
        """Emit epilogue and store of `width` pixels."""
        kernel = self.kernel
        value = kernel.epilogue.evaluate(total, at, width, self.buffers, "w")
        kernel.result.store(self.out, value, kernel.result.offset(*at), width, "w")


def _add(left: TirExpr, right: TirExpr) -> TirExpr:
    return left + right


def _every(buffer: Buffer, begin: TirExpr, count: int, stride: int) -> TirExpr:
    """Load `count` elements from `begin` on, `stride` apart.

    A small stride is a contiguous load, one instruction, and a shuffle; a strided load is many
    instructions.
    """
    if count == 1 or stride == 1 or stride > _LARGEST_STRIDE:
        return load(buffer, begin, count, stride)
    run = bind(load(buffer, begin, (count - 1) * stride + 1))
    lanes: Sequence[TirExpr] = [tirx.const(lane * stride, "int32") for lane in range(count)]
    return tirx.Shuffle([run], lanes)
