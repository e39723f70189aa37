"""Direct convolution, 1×1 and matrix products included, for every layout: a register-tiled kernel.

A register tile is ``width`` pixels of one row times ``vectors`` vectors of output channels. The reduction runs over
(channel block, kernel column, kernel row, channel); pixels whose tap lies in the horizontal padding are left out when the
code is generated, rows whose tap lies in the vertical padding by the bounds of the kernel-row loop, so no padded copy is
made. Input values are broadcast scalars, so the input may lie in any layout.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import chain, groupby
from math import gcd

import numpy as np
from tvm.tirx.script import builder as T

from tvm_passes.cpu import emit
from tvm_passes.cpu.emit import Accumulator, Buffer, TirExpr, bind, load, splat, store
from tvm_passes.cpu.epilogue import Epilogue
from tvm_passes.cpu.host import VectorUnit
from tvm_passes.cpu.tiling import Tiling, Workload, best_tiling, row_tilings, virtual_rows
from tvm_passes.cpu.view import View


@dataclass(frozen=True, kw_only=True)
class Convolution:
    """Shape of a 2-D convolution; of a matrix product where the kernel is 1×1 and the height 1."""

    batch: int
    in_channels: int
    in_height: int
    in_width: int
    out_channels: int
    out_height: int
    out_width: int
    kernel: tuple[int, int] = (1, 1)
    strides: tuple[int, int] = (1, 1)
    dilation: tuple[int, int] = (1, 1)
    pad_top: int = 0
    pad_left: int = 0
    groups: int = 1

    @property
    def group_in(self) -> int:
        """Input channels of a group."""
        return self.in_channels // self.groups

    @property
    def group_out(self) -> int:
        """Output channels of a group."""
        return self.out_channels // self.groups

    @property
    def flops(self) -> int:
        """Floating-point operations; a multiply-add is two."""
        pixels = self.batch * self.out_height * self.out_width
        return 2 * pixels * self.out_channels * self.group_in * self.kernel[0] * self.kernel[1]

    @property
    def pointwise(self) -> bool:
        """Whether each output pixel reads just the input pixel at its place."""
        return (
            self.kernel == (1, 1)
            and self.strides == (1, 1)
            and (self.in_height, self.in_width) == (self.out_height, self.out_width)
        )


@dataclass(frozen=True, kw_only=True)
class _Geometry:
    """A convolution as the kernel sees it: pointwise ones are cut into rows of the best length."""

    images: int
    rows: int
    """Rows of one image."""
    row: int
    """Pixels of a row."""
    row_stride: Callable[[View], tuple[int, int]]
    """(stride between rows, stride between pixels) of a view."""


def channel_block(convolution: Convolution, source: View) -> int:
    """Input channels that the inner reduction loop runs over, contiguous in `source` and a divisor of a group's."""
    channels = convolution.group_in
    if source.chunk != source.block * source.c:
        return gcd(channels, source.block)
    return max(size for size in range(1, min(channels, 32) + 1) if channels % size == 0)


PREFETCH = True
_BODY = 20
"""Multiply-adds that the innermost loop should hold at least; more only makes code larger."""


def _unroll(block: int, per_channel: int) -> int:
    """Channels per iteration of the innermost loop: a divisor of `block`."""
    factors = [factor for factor in (1, 2, 3, 4) if block % factor == 0]
    return next((f for f in factors if f * per_channel >= _BODY), factors[-1])


@dataclass(frozen=True, kw_only=True)
class ConvolutionKernel:
    """A convolution with its blocking: packs its weights and emits its code."""

    convolution: Convolution
    source: View
    result: View
    unit: VectorUnit
    epilogue: Epilogue

    @property
    def channel_vectors(self) -> int:
        """Vectors of output channels of one group."""
        return -(-self.convolution.group_out // self.unit.lanes)

    @property
    def steps(self) -> int:
        """Length of the reduction."""
        conv = self.convolution
        return conv.group_in * conv.kernel[0] * conv.kernel[1]

    def _mergeable(self, view: View) -> bool:
        return view.h == view.w * self.convolution.out_width

    @cached_property
    def geometry(self) -> _Geometry:
        """Rows and pixels that the kernel loops over."""
        conv = self.convolution
        views = [self.source, self.result, *self.epilogue.views.values()]
        if not conv.pointwise or not all(map(self._mergeable, views)):
            return _Geometry(
                images=conv.batch,
                rows=conv.out_height,
                row=conv.out_width,
                row_stride=lambda view: (view.h, view.w),
            )
        pixels = conv.out_height * conv.out_width
        row = virtual_rows(pixels, self.channel_vectors, self.steps, self.unit)
        return _Geometry(
            images=conv.batch,
            rows=pixels // row,
            row=row,
            row_stride=lambda view: (view.w * row, view.w),
        )

    @cached_property
    def tiling(self) -> Tiling:
        """The register tile and the tasks."""
        conv, geometry = self.convolution, self.geometry
        rows = geometry.images * geometry.rows
        work = Workload(
            rows=rows,
            channel_vectors=self.channel_vectors,
            groups=conv.groups,
            row_bytes=4 * conv.in_channels * conv.in_height * conv.in_width * conv.batch // rows,
            weight_bytes=4 * conv.out_channels * self.steps,
        )
        candidates = row_tilings(geometry.row, self.channel_vectors, self.steps, self.unit)
        return best_tiling(candidates, work, self.unit)

    @cached_property
    def channel_tiles(self) -> tuple[int, ...]:
        """Vectors of each tile of a group's output channels; the last may be narrower."""
        vectors = self.tiling.vectors
        full, rest = divmod(self.channel_vectors, vectors)
        return (vectors,) * full + ((rest,) if rest else ())

    def pack(self, weights: np.ndarray) -> np.ndarray:
        """Weights (O, I/groups, KH, KW) in the order in which the kernel reads them, as one flat array.

        Per group and tile of output channels: (channel block, column, row, channel, lane); channels beyond the last are
        zero.
        """
        conv, lanes = self.convolution, self.unit.lanes
        block = channel_block(conv, self.source)
        kernel_h, kernel_w = conv.kernel
        padded = self.channel_vectors * lanes
        full = np.zeros((conv.groups, padded, conv.group_in, kernel_h, kernel_w), weights.dtype)
        full[:, : conv.group_out] = weights.reshape(
            conv.groups, conv.group_out, conv.group_in, kernel_h, kernel_w
        )
        blocked = full.reshape(
            conv.groups, padded, conv.group_in // block, block, kernel_h, kernel_w
        ).transpose(0, 2, 5, 4, 3, 1)
        tiles, first = [], 0
        for vectors in self.channel_tiles:
            width = vectors * lanes
            tiles.append(blocked[..., first : first + width].reshape(conv.groups, -1))
            first += width
        return np.ascontiguousarray(np.concatenate(tiles, axis=1)).reshape(-1)

    @property
    def prefetches(self) -> bool:
        """Whether to fetch the next tile of weights while computing with the present one.

        Otherwise a tile's first pass waits for memory, and the following ones leave the memory idle.
        """
        return PREFETCH and 4 * self.packed_size > self.unit.l2_bytes // 8

    @property
    def packed_size(self) -> int:
        """Elements of the packed weights."""
        return self.convolution.groups * self.channel_vectors * self.unit.lanes * self.steps

    def emit(
        self, buffers: Mapping[int, Buffer], source: Buffer, weights: Buffer, out: Buffer
    ) -> None:
        """Emit the kernel.

        Parameters
        ----------
        buffers
            Flat buffer of each parameter by its index, for the epilogue.
        source
            The input.
        weights
            What :meth:`pack` yields.
        out
            The result.
        """
        _Emitter(self, buffers, source, weights, out).emit()


class _Emitter:
    """Emits the loops of one kernel."""

    def __init__(
        self,
        kernel: ConvolutionKernel,
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
        self.block = channel_block(self.conv, kernel.source)
        blocks = [self.lanes, *kernel.epilogue.blocks]
        if kernel.result.chunk != kernel.result.block * kernel.result.c:
            blocks.append(kernel.result.block)
        self.piece = min(blocks)

    def emit(self) -> None:
        tiles = self.kernel.channel_tiles
        rows = self.geometry.images * self.geometry.rows
        row_blocks = -(-rows // self.tiling.rows)
        per_group = len(tiles)
        channel_tiles = self.conv.groups * per_group
        loop = emit.parallel if self.kernel.unit.threads > 1 else emit.serial
        with loop(row_blocks * channel_tiles) as task:
            first = bind((task // channel_tiles) * self.tiling.rows)
            count = bind(T.min(self.tiling.rows, rows - first))
            group = bind(task % channel_tiles // per_group)
            tile = bind(task % per_group)
            with emit.serial(count) as offset:
                row = bind(first + offset)
                self._row(row, group, tile, tiles)

    def _row(self, row: TirExpr, group: TirExpr, tile: TirExpr, tiles: Sequence[int]) -> None:
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
        self, row: TirExpr, group: TirExpr, tile: TirExpr, vectors: int, tail: int
    ) -> None:
        """One row of one tile of channels; `tail` lanes of its last vector exist."""
        size = self.kernel.steps * self.lanes
        group_size = self.kernel.channel_vectors * size
        weights = bind(group * group_size + tile * (self.tiling.vectors * size))
        channel = bind(group * self.conv.group_out + tile * (self.tiling.vectors * self.lanes))
        image = bind(row // self.geometry.rows)
        y = bind(row % self.geometry.rows)
        first = 0
        for width, run in groupby(self.tiling.widths):
            count = len(list(run))
            with emit.serial(count) as index:
                left = bind(first + index * width)
                self._tile(
                    _Place(
                        image=image,
                        y=y,
                        left=left,
                        width=width,
                        lefts=tuple(first + step * width for step in range(count)),
                        group=group,
                        channel=channel,
                        vectors=vectors,
                        tail=tail,
                        weights=weights,
                    )
                )
            first += count * width

    def _tile(self, place: _Place) -> None:
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
        conv = self.conv
        kernel_w = conv.kernel[1]
        low, high = self._kernel_rows(place.y)
        with emit.serial(conv.group_in // self.block) as chunk:
            for column in range(kernel_w):
                masks = [self._valid(left, place.width, column) for left in place.lefts]
                body = partial(self._columns, place, accumulators, chunk, column, (low, high))
                self._by_mask(place, masks, body)

    def _by_mask(
        self,
        place: _Place,
        masks: Sequence[tuple[int, ...]],
        body: Callable[[tuple[int, ...]], None],
    ) -> None:
        """Emit `body` once for each distinct set of valid pixels, chosen by the tile's place."""
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
        conv = self.conv
        positions = (
            (left + pixel) * conv.strides[1] + column * conv.dilation[1] - conv.pad_left
            for pixel in range(width)
        )
        limit = self.geometry.row if conv.pointwise else conv.in_width
        return tuple(pixel for pixel, x in enumerate(positions) if 0 <= x < limit)

    def _kernel_rows(self, y: TirExpr) -> tuple[TirExpr, TirExpr]:
        """Bounds of the kernel rows whose tap is inside the image at output row `y`."""
        conv = self.conv
        height, stride, dilation = conv.kernel[0], conv.strides[0], conv.dilation[0]
        bottom = (conv.out_height - 1) * stride + (height - 1) * dilation - conv.pad_top
        if conv.pad_top == 0 and bottom < conv.in_height:
            return 0, height
        top = y * stride - conv.pad_top
        low = T.max(0, (dilation - 1 - top) // dilation)
        high = T.min(height, (conv.in_height - top + dilation - 1) // dilation)
        return bind(low), bind(high)

    def _columns(
        self,
        place: _Place,
        accumulators: Sequence[Sequence[Accumulator]],
        chunk: TirExpr,
        column: int,
        rows: tuple[TirExpr, TirExpr],
        valid: Sequence[int],
    ) -> None:
        """All kernel rows and the channels of a block, for one kernel column."""
        conv, view = self.conv, self.kernel.source
        low, high = rows
        row_stride, pixel_stride = self.geometry.row_stride(view)
        width = place.vectors * self.lanes
        kernel_h, kernel_w = conv.kernel
        unroll = _unroll(self.block, place.width * place.vectors)
        channels = bind(view.channel(place.group * conv.group_in + chunk * self.block))
        x = place.left * conv.strides[1] + column * conv.dilation[1] - conv.pad_left
        base = place.image * view.n + channels + x * pixel_stride
        start = place.weights + (chunk * kernel_w + column) * (kernel_h * self.block * width)
        with emit.serial(high - low if not isinstance(high, int) else high) as step:
            kernel_row = bind(step + low)
            y = place.y * conv.strides[0] + kernel_row * conv.dilation[0] - conv.pad_top
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
        """One input channel at one tap: an outer product of pixels and output channels."""
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
        """Epilogue and store of one accumulator, in pieces that do not cross a block of channels."""
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
            # Pointwise kernels number their pixels; the views' rows are as long as the image's.
            y, x = 0, place.y * self.geometry.row + x
        at = (place.image, channel, y, x)
        result = self.kernel.epilogue.evaluate(value, at, count, self.buffers)
        view = self.kernel.result
        store(self.out, result, view.offset(*at), count, view.c)


@dataclass(frozen=True, kw_only=True)
class _Place:
    """Which part of the result a register tile computes."""

    image: TirExpr
    y: TirExpr
    left: TirExpr
    """First pixel of the row."""
    width: int
    lefts: tuple[int, ...]
    """Every value that `left` takes."""
    group: TirExpr
    channel: TirExpr
    """First output channel."""
    vectors: int
    tail: int
    """Lanes of the last vector that exist."""
    weights: TirExpr
    """Offset of the tile's packed weights."""
