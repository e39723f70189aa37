"""The code of a product on tiles: tasks, copies, loops, tile products, epilogue."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from tvm import tirx
from tvm.tirx.script import builder as T

from tvm_passes.amx import tiles
from tvm_passes.amx.tiles import LANES, ROW_BYTES, ROWS, Operands
from tvm_passes.cpu import emit
from tvm_passes.cpu.emit import Buffer, TirExpr, bind
from tvm_passes.cpu.view import View

if TYPE_CHECKING:
    from tvm_passes.amx.kernel import AmxKernel

_TILE = ROWS * ROW_BYTES // 2
_LINE = ROW_BYTES // 2
"""Elements of bfloat16 in a cache line."""


@dataclass(frozen=True, kw_only=True)
class _Task:
    """What one task computes."""

    image: TirExpr
    row: TirExpr
    """First row of results."""
    operand: Buffer
    """Where pixels are read from."""
    base: TirExpr
    """Where it holds the first one."""
    sums: Buffer
    """Where accumulators are stored before the epilogue."""
    first_block: TirExpr
    blocks: TirExpr
    """Blocks of output channels, and how many."""


@dataclass(frozen=True, kw_only=True)
class _Columns:
    """A block of output channels."""

    block: TirExpr
    count: int
    """Tiles."""
    exist: int
    """Channels of the last tile that exist."""


class Emitter:
    """Emits one kernel."""

    def __init__(
        self,
        kernel: AmxKernel,
        buffers: Mapping[int, Buffer],
        source: Buffer,
        weights: Buffer,
        out: Buffer,
    ) -> None:
        self.kernel = kernel
        self.conv = kernel.convolution
        self.geometry = kernel.geometry
        self.blocking = kernel.blocking
        self.block = kernel.blocking.block
        self.halves = kernel.geometry.halves
        self.tiles = kernel.geometry.tiles(kernel.blocking.rows)
        self.buffers = buffers
        self.source = source
        self.weights = weights
        self.out = out
        self.merges = all(map(self._merges, [kernel.result, *kernel.epilogue.views.values()]))

    def _merges(self, view: View) -> bool:
        """Whether pixels that are numbered through rows, or through images, follow each other at one stride."""
        conv = self.conv
        images = conv.batch == 1 or not self.geometry.spans_images
        return view.h == view.w * conv.out_width and (images or view.n == view.h * conv.out_height)

    def emit(self) -> None:
        """Emit everything."""
        blocking, geometry = self.blocking, self.geometry
        chunks = geometry.images * blocking.chunks
        blocks = -(-self.kernel.columns // self.block.channels)
        with emit.parallel(chunks * blocking.parts) as task:
            chunk = bind(task // blocking.parts)
            part = bind(task % blocking.parts)
            row = tirx.min(chunk % blocking.chunks * blocking.rows, geometry.height - blocking.rows)
            first = bind(part * blocks // blocking.parts)
            self._task(
                bind(chunk // blocking.chunks),
                bind(row),
                first,
                bind((part + 1) * blocks // blocking.parts - first),
            )

    def _task(self, image: TirExpr, row: TirExpr, first: TirExpr, blocks: TirExpr) -> None:
        block, geometry = self.block, self.geometry
        sums = T.alloc_buffer((block.accumulators * self.tiles.rows * LANES,), "float32")
        rows = self.blocking.rows
        operand, base = self.source, 0
        if size := geometry.copy_size(rows):
            operand = T.alloc_buffer((size,), "uint16")
            geometry.copy(self.source, operand, image, row, rows)
        else:
            base = bind(image * self.kernel.source.n + row * self.kernel.source.w)
        task = _Task(
            image=image,
            row=row,
            operand=operand,
            base=base,
            sums=sums,
            first_block=first,
            blocks=blocks,
        )
        left, right = block.operands(self.halves)
        shapes = [(self.tiles.rows, ROW_BYTES)] * block.accumulators
        shapes += [(self.tiles.rows, 2 * geometry.depth)] * len(left)
        shapes += [(geometry.depth // 2, ROW_BYTES)] * len(right)
        tiles.configure(shapes)
        if self.blocking.pixels_first:
            self._pixels(
                lambda tile, count: self._channels(task, partial(self._block, task, tile, count))
            )
        else:
            self._channels(
                task, lambda columns: self._pixels(partial(self._block_of, task, columns))
            )
        tiles.release()

    def _block_of(self, task: _Task, columns: _Columns, tile: TirExpr, count: int) -> None:
        self._block(task, tile, count, columns)

    def _pixels(self, body: Callable[[TirExpr, int], None]) -> None:
        """Emit `body` for each block of pixels: its first tile, and how many it has."""
        full, rest = divmod(self.tiles.count, self.block.pixels)
        if full:
            with emit.serial(full) as index:
                body(bind(index * self.block.pixels), self.block.pixels)
        if rest:
            body(full * self.block.pixels, rest)

    def _channels(self, task: _Task, body: Callable[[_Columns], None]) -> None:
        """Emit `body` for each block of output channels of a task."""
        columns, size = self.kernel.columns, self.block.channels
        tail = self.conv.out_channels - (columns - 1) * LANES
        last = (columns - 1) // size
        count = columns - last * size
        with emit.serial(task.blocks) as index:
            block = bind(task.first_block + index)
            end = _Columns(block=block, count=count, exist=tail)
            whole = _Columns(block=block, count=size, exist=LANES)
            if (count, tail) == (size, LANES):
                body(whole)
            elif last == 0:
                body(end)
            else:
                emit.when(block < last, lambda: body(whole), lambda: body(end))

    def _block(self, task: _Task, tile: TirExpr, pixels: int, columns: _Columns) -> None:
        """One register block: `pixels` tiles from `tile` on, times a block of channels."""
        places = []
        for index in range(pixels):
            line, pixel = self.tiles.first(tile + index)
            places.append((bind(line), bind(pixel)))
        cells = [
            (row, column if row % 2 == 0 else columns.count - 1 - column)
            for row in range(pixels)
            for column in range(columns.count)
        ]
        for row, column in cells:
            tiles.zero(row * columns.count + column)
        offsets = [bind(self.tiles.offset(*place)) for place in places]
        self._reduce(task, tile, offsets, cells, columns)
        stride = columns.count * LANES
        for row, column in cells:
            where = row * self.tiles.rows * stride + column * LANES
            tiles.store(row * columns.count + column, task.sums, where, 4 * stride)
        for row, place in enumerate(places):
            self._finish(task, place, row * self.tiles.rows * stride, columns)

    def _prefetch(self, tile: TirExpr, weights: TirExpr, size: int) -> None:
        """Ask for this block's share of the weights that the same step of the next block of channels will load.

        All of a task's blocks of pixels take part, so that memory delivers while tiles are multiplied.
        """
        blocks = -(-self.tiles.count // self.block.pixels)
        share = -(-size // (_LINE * blocks))
        first = weights + tile // self.block.pixels * (share * _LINE)
        for line in range(share):
            emit.prefetch(self.weights, first + line * _LINE)

    def _reduce(
        self,
        task: _Task,
        tile: TirExpr,
        offsets: list[TirExpr],
        cells: list[tuple[int, int]],
        columns: _Columns,
    ) -> None:
        geometry = self.geometry
        size = columns.count * self.halves * _TILE
        base = bind(columns.block * (self.block.channels * geometry.steps * self.halves * _TILE))

        def step(offset: TirExpr, number: TirExpr) -> None:
            pixels = bind(task.base + offset)
            weights = bind(base + number * size)
            self._products(task, [pixels + place for place in offsets], cells, weights)
            if not self.blocking.pixels_first:
                self._prefetch(tile, weights + geometry.steps * size, size)

        geometry.reduce(self.blocking.rows, step)

    def _products(
        self,
        task: _Task,
        offsets: list[TirExpr],
        cells: list[tuple[int, int]],
        weights: TirExpr,
    ) -> None:
        """One step of every accumulator; of split operands all products but that of the low halves."""
        left, right = (Operands(registers) for registers in self.block.operands(self.halves))
        stride = 2 * self.geometry.pixel_stride
        count = len({column for _, column in cells})

        def load_pixels(row: int, half: int, register: int) -> None:
            where = offsets[row] + half * self.geometry.low(self.blocking.rows)
            tiles.load(register, task.operand, where, stride)

        def load_weights(column: int, half: int, register: int) -> None:
            where = weights + (column * self.halves + half) * _TILE
            tiles.load(register, self.weights, where, ROW_BYTES)

        for row, column in cells:
            for first, second in ((0, 0), (0, 1), (1, 0))[: 2 * self.halves - 1]:
                tiles.dot(
                    row * count + column,
                    left.get((row, first), partial(load_pixels, row, first)),
                    right.get((column, second), partial(load_weights, column, second)),
                )

    def _finish(
        self, task: _Task, place: tuple[TirExpr, TirExpr], sums: TirExpr, columns: _Columns
    ) -> None:
        """Epilogue and store of a tile of pixels."""
        line, pixel = place
        with emit.serial(self.tiles.rows) as index:
            number = bind(pixel + index)
            at, exists = self._where(task, line, number)
            store = partial(self._store, task, at, sums + index * (columns.count * LANES), columns)
            if exists is None:
                store()
            else:
                with T.If(exists), T.Then():
                    store()

    def _where(
        self, task: _Task, line: TirExpr, number: TirExpr
    ) -> tuple[tuple[TirExpr, TirExpr, TirExpr], TirExpr | None]:
        """Image, row and column of a pixel of a task, and whether it exists; None where all do."""
        geometry, conv = self.geometry, self.conv
        if geometry.by_rows:
            return (task.image, bind(task.row + line), number), None
        if geometry.pitch == geometry.width:
            flat = bind(task.row * geometry.width + number)
            if self.merges:
                return (task.image, 0, flat), None
            size = conv.out_height * conv.out_width
            image = bind(flat // size) if geometry.spans_images else task.image
            within = bind(flat % size) if geometry.spans_images else flat
            return (image, bind(within // conv.out_width), bind(within % conv.out_width)), None
        row, column = bind(number // geometry.pitch), bind(number % geometry.pitch)
        return (task.image, bind(task.row + row), column), column < geometry.width

    def _store(
        self,
        task: _Task,
        at: tuple[TirExpr, TirExpr, TirExpr],
        sums: TirExpr,
        columns: _Columns,
    ) -> None:
        image, y, x = at
        result = self.kernel.result
        exist = (columns.count - 1) * LANES + columns.exist
        for first in range(0, exist, 2 * LANES):
            lanes = min(exist - first, 2 * LANES)
            where = (image, columns.block * (self.block.channels * LANES) + first, y, x)
            value = emit.load(task.sums, sums + first, lanes)
            value = self.kernel.epilogue.evaluate(value, where, lanes, self.buffers)
            result.store(self.out, value, result.offset(*where), lanes)
