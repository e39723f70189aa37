"""Code that packs weights which are computed at run time, before a kernel uses them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from tvm import tirx
from tvm.tirx.script import builder as T

from tvm_passes.cpu import emit
from tvm_passes.cpu.convolution import BlockedConvolution, Convolution
from tvm_passes.cpu.emit import Buffer, TirExpr, bind, splat, store
from tvm_passes.cpu.filters import Filters


@dataclass(frozen=True)
class _Panel:
    """Packing of one vector of output channels into a tile of packed weights."""

    kernel: BlockedConvolution
    """Kernel that reads the packed weights."""
    filters: Filters
    """Positions of the weights."""
    weights: Buffer
    """Buffer of the weights."""
    packed: Buffer
    """Buffer of the packed weights."""
    channel: TirExpr
    """First output channel."""
    count: int
    """Number of lanes that correspond to output channels."""
    base: TirExpr
    """Offset of the vector's first step in `packed`."""
    width: TirExpr
    """Lanes of the tile."""

    def store(self, value: TirExpr, tap: tuple[TirExpr, TirExpr, TirExpr], count: int) -> None:
        """Store `count` lanes of the weights at (input channel, row, column)."""
        channel, row, column = tap
        block, (kernel_h, kernel_w) = self.kernel.channel_block, self.kernel.convolution.kernel
        outer = (channel // block * kernel_w + column) * kernel_h + row
        step = outer * block + channel % block
        store(self.packed, value, self.base + step * self.width, count)

    def by_tap(self) -> None:
        """Emit a separate load for the vector of each tap."""
        conv, lanes = self.kernel.convolution, self.kernel.unit.lanes
        height, width = conv.kernel
        with (
            emit.serial(conv.group_in) as channel,
            emit.serial(height) as row,
            emit.serial(width) as column,
        ):
            if self.count < lanes:
                self.store(splat(0.0, lanes), (channel, row, column), lanes)
            value = self.filters.load(
                self.weights, (self.channel, channel, row, column), self.count
            )
            self.store(value, (channel, row, column), self.count)

    def by_square(self) -> None:
        """Emit loads of one vector of weights from each output channel, and their transpose."""
        lanes, steps = self.kernel.unit.lanes, self.kernel.steps
        view = self.filters.view
        with emit.serial(steps // lanes) as square:
            self._square(view.offset(self.channel, 0, 0, 0), square * lanes, lanes)
        if rest := steps % lanes:
            self._square(view.offset(self.channel, 0, 0, 0), steps - rest, rest)

    def _square(self, start: TirExpr, first: TirExpr, length: int) -> None:
        """Emit weights ``first … first + length - 1`` of the flat rows that begin at `start`."""
        lanes, view = self.kernel.unit.lanes, self.filters.view
        height, width = self.kernel.convolution.kernel
        rows = [
            bind(view.load(self.weights, start + row * view.n + first, length, "w"))
            if row < self.count
            else splat(0.0, length)
            for row in range(lanes)
        ]
        for index, vector in enumerate(_transposed(rows, length)):
            flat = bind(first + index)
            tap = (flat // (height * width), flat // width % height, flat % width)
            self.store(vector, tap, lanes)


def _transposed(rows: list[TirExpr], length: int) -> list[TirExpr]:
    """Return the vectors of equal lanes of `rows`, whose number is a power of two."""
    lanes = len(rows)
    if length < lanes:
        columns = (range(column, lanes * length, length) for column in range(length))
        return [bind(tirx.Shuffle(rows, _numbers(column))) for column in columns]
    distance = 1
    while distance < lanes:
        for row in range(lanes):
            if not row & distance:
                pair = [rows[row], rows[row + distance]]
                upper = [i if not i & distance else lanes + i - distance for i in range(lanes)]
                lower = [i + distance if not i & distance else lanes + i for i in range(lanes)]
                rows[row] = bind(tirx.Shuffle(pair, _numbers(upper)))
                rows[row + distance] = bind(tirx.Shuffle(pair, _numbers(lower)))
        distance *= 2
    return rows


def _numbers(values: Iterable[int]) -> list[TirExpr]:
    """Return integers as TIR constants."""
    return [tirx.const(value, "int32") for value in values]


def emit_packing(
    kernel: BlockedConvolution, filters: Filters, weights: Buffer, packed: Buffer
) -> None:
    """Emit :meth:`BlockedConvolution.pack` of run-time weights; threads share output channels."""
    conv, lanes = kernel.convolution, kernel.unit.lanes
    per_tile, per_group = kernel.tiling.vectors, kernel.channel_vectors
    tail = conv.group_out % lanes or lanes
    is_flat = filters.has_flat_rows(conv.kernel)

    def vector(group: TirExpr, index: TirExpr, count: int) -> None:
        tile = index // per_tile
        start = (group * per_group + tile * per_tile) * (lanes * kernel.steps)
        panel = _Panel(
            kernel,
            filters,
            weights,
            packed,
            channel=bind(group * conv.group_out + index * lanes),
            count=count,
            base=bind(start + index % per_tile * lanes),
            width=bind(T.min(per_tile, per_group - tile * per_tile) * lanes),
        )
        if is_flat:
            panel.by_square()
        else:
            panel.by_tap()

    with emit.parallel(conv.groups * per_group) as task:
        group, index = bind(task // per_group), bind(task % per_group)
        if tail == lanes:
            vector(group, index, lanes)
        else:
            emit.when(
                index < per_group - 1,
                lambda: vector(group, index, lanes),
                lambda: vector(group, index, tail),
            )


def emit_depthwise_packing(
    shape: Convolution, lanes: int, filters: Filters, weights: Buffer, packed: Buffer
) -> None:
    """Emit the packing of depth-wise run-time weights, in vectors of `lanes` channels."""
    kernel_h, kernel_w = shape.kernel
    vectors = -(-shape.out_channels // lanes)
    tail = shape.out_channels % lanes or lanes

    def vector(index: TirExpr, count: int) -> None:
        with emit.serial(kernel_h) as row, emit.serial(kernel_w) as column:
            at = bind(((index * kernel_h + row) * kernel_w + column) * lanes)
            value = filters.load(weights, (index * lanes, 0, row, column), count)
            store(packed, value, at, count)

    with emit.parallel(vectors) as index:
        if tail == lanes:
            vector(index, lanes)
        else:
            emit.when(
                index < vectors - 1,
                lambda: vector(index, lanes),
                lambda: vector(index, tail),
            )
