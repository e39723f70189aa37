"""Code of a direct convolution: loops, register tiles, epilogue."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from itertools import chain, groupby

from tvm.tirx.script import builder as T

from tvm_passes.cpu import emit
from tvm_passes.cpu.convolution import BlockedConvolution
from tvm_passes.cpu.emit import Accumulator, Buffer, TirExpr, bind, load, splat
from tvm_passes.cpu.row_share import RowShare, tile_runs
from tvm_passes.cpu.taps import Reach, enter_taps, reach_at

_BODY = 20
"""Minimum number of multiply-adds in the innermost loop; more only makes the code larger."""


def _unroll(block: int, per_channel: int) -> int:
    """Return the channels per iteration of the innermost loop: a divisor of `block`."""
    factors = [factor for factor in (1, 2, 3, 4) if block % factor == 0]
    return next((f for f in factors if f * per_channel >= _BODY), factors[-1])


@dataclass(frozen=True, kw_only=True)
class _Place:
    """Part of the result that a register tile computes."""

    image: TirExpr
    """Index of the image."""
    y: TirExpr
    """Row of the image."""
    left: TirExpr
    """First pixel of the row."""
    width: int
    """Number of pixels."""
    lefts: tuple[int, ...]
    """All values that `left` takes."""
    group: TirExpr
    """Channel group."""
    channel: TirExpr
    """First output channel."""
    vectors: int
    """Vectors of output channels."""
    tail: int
    """Number of lanes of the last vector that correspond to channels."""
    weights: TirExpr
    """Offset of the tile's packed weights."""


class ConvolutionEmitter:
    """Emitter of one kernel's loops."""

    def __init__(
        self,
        kernel: BlockedConvolution,
        buffers: Mapping[int, Buffer],
        source: Buffer,
        weights: Buffer,
        out: Buffer,
    ) -> None:
        self.kernel = kernel
        self.conv = kernel.convolution
        self.lanes = kernel.unit.lanes
        self.buffers = buffers
        self.source = source
        self.weights = weights
        self.out = out
        self.tiling = kernel.tiling
        self.geometry = kernel.geometry
        self.block = kernel.channel_block
        blocks = [self.lanes, *kernel.epilogue.blocks]
        if kernel.result.chunk != kernel.result.block * kernel.result.c:
            blocks.append(kernel.result.block)
        self.piece = min(blocks)

    def emit(self) -> None:
        """Emit the whole kernel: a parallel loop over rows and channel tiles."""
        tiles = self.kernel.channel_tiles
        rows = self.geometry.images * self.geometry.rows
        row_blocks = -(-rows // self.tiling.rows)
        per_group = len(tiles)
        channel_tiles = self.conv.groups * per_group
        loop = emit.parallel if self.kernel.unit.threads > 1 else emit.serial
        shares = self.tiling.shares
        with loop(row_blocks * shares * channel_tiles) as task:
            first = bind((task // (shares * channel_tiles)) * self.tiling.rows)
            count = bind(T.min(self.tiling.rows, rows - first))
            group = bind(task % channel_tiles // per_group)
            tile = bind(task % per_group)
            share = bind(task // channel_tiles % shares) if shares > 1 else 0
            with emit.serial(count) as offset:
                row = bind(first + offset)
                self._row(RowShare(row, share), group, tile, tiles)

    def _row(self, row: RowShare, group: TirExpr, tile: TirExpr, tiles: Sequence[int]) -> None:
        """Emit a task's part of one row of one channel tile, which may be the partial last one."""
        lanes, partial = self.lanes, self.conv.group_out % self.lanes
        last = len(tiles) - 1
        ragged = bool(partial) or tiles[last] != tiles[0]
        tail = partial or lanes
        if not ragged:
            self._channels(row, group, tile, tiles[0], lanes)
        elif last == 0:
            self._channels(row, group, 0, tiles[0], tail)
        else:
            emit.when(
                tile < last,
                lambda: self._channels(row, group, tile, tiles[0], lanes),
                lambda: self._channels(row, group, last, tiles[last], tail),
            )

    def _channels(
        self, row: RowShare, group: TirExpr, tile: TirExpr, vectors: int, tail: int
    ) -> None:
        """Emit one row of one channel tile; only `tail` lanes of its last vector are channels."""
        size = self.kernel.steps * self.lanes
        group_size = self.kernel.channel_vectors * size
        start = self.kernel.weights_start
        weights = bind(start + group * group_size + tile * (self.tiling.vectors * size))
        channel = bind(group * self.conv.group_out + tile * (self.tiling.vectors * self.lanes))
        image = bind(row.index // self.geometry.rows)
        y = bind(row.index % self.geometry.rows)
        for run in tile_runs(self.tiling, row.share):
            with emit.serial(run.count) as index:
                left = bind(run.lefts[0] + (run.first + index) * run.width)
                self._tile(
                    _Place(
                        image=image,
                        y=y,
                        left=left,
                        width=run.width,
                        lefts=run.lefts,
                        group=group,
                        channel=channel,
                        vectors=vectors,
                        tail=tail,
                        weights=weights,
                    )
                )

    def _tile(self, place: _Place) -> None:
        """Emit one register tile: reduction, epilogue and store."""
        accumulators = [
            [Accumulator(self.lanes) for _ in range(place.vectors)] for _ in range(place.width)
        ]
        for accumulator in chain.from_iterable(accumulators):
            accumulator.zero()
        self._reduce(place, accumulators)
        for pixel, vectors in enumerate(accumulators):
            for index, accumulator in enumerate(vectors):
                self._finish(place, pixel, index, accumulator.value)

    def _reduce(self, place: _Place, accumulators: Sequence[Sequence[Accumulator]]) -> None:
        """Emit the reduction of a register tile."""
        conv = self.conv
        kernel_w = conv.kernel[1]
        reach = reach_at(self.conv.row_axes, place.y)
        with emit.serial(conv.group_in // self.block) as chunk:
            for column in range(kernel_w):
                masks = [self._valid(left, place.width, column) for left in place.lefts]
                body = partial(self._columns, place, accumulators, chunk, column, reach)
                self._by_mask(place, masks, body)

    def _by_mask(
        self,
        place: _Place,
        masks: Sequence[tuple[int, ...]],
        body: Callable[[tuple[int, ...]], None],
    ) -> None:
        """Emit `body` for each distinct set of valid pixels, selected by the tile's position."""
        runs = [(mask, len(list(run))) for mask, run in groupby(masks)]
        self._by_run(place, runs, 0, body)

    def _by_run(
        self,
        place: _Place,
        runs: Sequence[tuple[tuple[int, ...], int]],
        start: int,
        body: Callable[[tuple[int, ...]], None],
    ) -> None:
        (mask, length), rest = runs[0], runs[1:]
        if not rest:
            if mask:
                body(mask)
            return
        boundary = place.lefts[start + length]
        emit.when(
            place.left < boundary,
            lambda: body(mask) if mask else emit.nothing(),
            lambda: self._by_run(place, rest, start + length, body),
        )

    def _valid(self, left: int, width: int, column: int) -> tuple[int, ...]:
        """Return the pixels of a tile whose tap in kernel column `column` lies in the input."""
        conv = self.conv
        positions = (
            (left + pixel) * conv.strides[1] + column * conv.dilation[1] - conv.pad_left
            for pixel in range(width)
        )
        limit = self.geometry.row if conv.pointwise else conv.in_width
        return tuple(pixel for pixel, x in enumerate(positions) if 0 <= x < limit)

    def _columns(
        self,
        place: _Place,
        accumulators: Sequence[Sequence[Accumulator]],
        chunk: TirExpr,
        column: int,
        reach: Sequence[Reach],
        valid: Sequence[int],
    ) -> None:
        """Emit all kernel rows and the channels of a block, for one kernel column."""
        conv, view = self.conv, self.kernel.source
        row_stride, pixel_stride = self.geometry.row_stride(view)
        width = place.vectors * self.lanes
        kernel_h, kernel_w = conv.kernel
        unroll = _unroll(self.block, place.width * place.vectors)
        channels = bind(view.channel(place.group * conv.group_in + chunk * self.block))
        x = place.left * conv.strides[1] + column * conv.dilation[1] - conv.pad_left
        base = place.image * view.n + channels + x * pixel_stride
        start = place.weights + (chunk * kernel_w + column) * (kernel_h * self.block * width)
        with ExitStack() as loops:
            kernel_row, y = enter_taps(reach, loops)
            with emit.serial(self.block // unroll) as inner:
                source = bind(base + y * row_stride + inner * (unroll * view.c))
                weights = bind(start + (kernel_row * self.block + inner * unroll) * width)
                for lane in range(unroll):
                    self._step(
                        accumulators,
                        source + lane * view.c,
                        conv.strides[1] * pixel_stride,
                        weights + lane * width,
                        valid,
                    )

    def _step(
        self,
        accumulators: Sequence[Sequence[Accumulator]],
        source: TirExpr,
        pixel_stride: int,
        weights: TirExpr,
        valid: Sequence[int],
    ) -> None:
        """Emit one input channel at one tap: an outer product of pixels and output channels."""
        lanes, vectors = self.lanes, len(accumulators[0])
        loaded = []
        for index in range(vectors):
            loaded.append(bind(load(self.weights, weights + index * lanes, lanes)))
            if self.kernel.prefetches:
                panel = self.kernel.steps * self.tiling.vectors * lanes
                emit.prefetch(self.weights, weights + index * lanes + panel)
        for pixel in valid:
            value = bind(splat(self.source[source + pixel * pixel_stride], lanes))
            for accumulator, weight in zip(accumulators[pixel], loaded, strict=True):
                accumulator.set(accumulator.value + value * weight)

    def _finish(self, place: _Place, pixel: int, index: int, value: TirExpr) -> None:
        """Emit epilogue and store of one accumulator, in pieces within a channel block."""
        exist = place.tail if index == place.vectors - 1 else self.lanes
        value = bind(value) if self.piece < self.lanes or exist < self.lanes else value
        for first in range(0, exist, self.piece):
            count = min(self.piece, exist - first)
            channel = place.channel + (index * self.lanes + first)
            part = emit.lanes_of(value, first, count, self.lanes)
            self._store(place, pixel, channel, part, count)

    def _store(
        self, place: _Place, pixel: int, channel: TirExpr, value: TirExpr, count: int
    ) -> None:
        y, x = place.y, place.left + pixel
        if self.geometry.row != self.conv.out_width or self.geometry.rows != self.conv.out_height:
            # Pointwise kernels have rows of their own; the rows of views are as long as the
            # image's.
            y, x = 0, place.y * self.geometry.row + x
        at = (place.image, channel, y, x)
        result = self.kernel.epilogue.evaluate(value, at, count, self.buffers)
        view = self.kernel.result
        view.store(self.out, result, view.offset(*at), count)
