"""Code of a product on tiles: tasks, copies, loops, tile products, epilogue."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

from tvm import tirx
from tvm.tirx.script import builder as T

from tvm_passes.amx import tiles
from tvm_passes.amx.tiled_product import TiledProduct
from tvm_passes.amx.tiles import LANES, ROW_BYTES, ROWS, Operands
from tvm_passes.cpu import emit
from tvm_passes.cpu.emit import Buffer, TirExpr, bind
from tvm_passes.cpu.view import View

_TILE = ROWS * ROW_BYTES // 2
"""Elements of a tile of weights."""
_LINE = ROW_BYTES // 2
"""Elements of bfloat16 in a cache line."""


@dataclass(frozen=True, kw_only=True)
class _Task:
    """Position and buffers of one task."""

    image: TirExpr
    """Index of the image."""
    row: TirExpr
    """First row of results."""
    operand: Buffer
    """Buffer from which pixels are read."""
    base: TirExpr
    """Offset of the first pixel in `operand`."""
    sums: Buffer
    """Accumulators of two blocks before the epilogue."""
    first: TirExpr
    """Index of the first block of output channels."""
    blocks: TirExpr
    """Number of blocks of output channels."""


@dataclass(frozen=True, kw_only=True)
class _Block:
    """One register block of a task."""

    number: TirExpr
    """Index of the block in the task."""
    tile: TirExpr
    """Index of the first pixel tile."""
    channels: TirExpr
    """Index of the block of output channels."""


class Emitter:
    """Emitter of one kernel."""

    def __init__(
        self,
        kernel: TiledProduct,
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
        self.pixel_blocks = -(-self.tiles.count // self.block.pixels)
        self.width = kernel.width
        views = [kernel.result, *kernel.epilogue.views.values()]
        blocks = [view.block for view in views if view.c and view.chunk != view.block]
        whole = LANES if blocks and self.width % (2 * LANES) else 2 * LANES
        self.piece = min([whole, *blocks])
        """Channels that are stored at once; they do not cross a block of the layout."""
        self.lines = self.block.pixels * self.tiles.rows
        """Pixels of a block."""

    def _merges(self, view: View) -> bool:
        """Return whether consecutive pixels across rows or images have one stride in `view`."""
        conv = self.conv
        images = conv.batch == 1 or not self.geometry.spans_images
        return view.h == view.w * conv.out_width and (images or view.n == view.h * conv.out_height)

    def emit(self) -> None:
        """Emit the whole kernel: a parallel loop over the tasks."""
        blocking, geometry = self.blocking, self.geometry
        chunks = geometry.images * blocking.chunks
        blocks = self.kernel.columns // self.block.channels
        with emit.parallel(chunks * blocking.parts) as task:
            chunk = bind(task // blocking.parts)
            part = bind(task % blocking.parts)
            row = chunk % blocking.chunks * blocking.rows
            first, count = emit.share(blocks, part, blocking.parts)
            self._task(
                bind(chunk // blocking.chunks),
                bind(tirx.min(row, geometry.height - blocking.rows)),
                first,
                count,
            )

    def _task(self, image: TirExpr, row: TirExpr, first: TirExpr, blocks: TirExpr) -> None:
        """Emit one task: copy, products and epilogue."""
        geometry, rows = self.geometry, self.blocking.rows
        sums = T.alloc_buffer((2 * self.lines * self.width,), "float32")
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
            first=first,
            blocks=blocks,
        )
        self._configure()
        total = bind(blocks * self.pixel_blocks)
        # The epilogue of a block runs among the products of the next one, because other units of
        # the core compute it.
        with emit.serial(total + 1) as number:
            last = partial(self._finish, task, number, 0, self.lines)
            emit.when(number < total, lambda: self._block(task, number), last)
        tiles.release()

    def _configure(self) -> None:
        """Emit the shapes of the tile registers."""
        depth = self.geometry.depth
        left, right = self.block.operands(self.halves)
        shapes = [(self.tiles.rows, ROW_BYTES)] * self.block.accumulators
        shapes += [(self.tiles.rows, 2 * depth)] * len(left)
        shapes += [(depth // 2, ROW_BYTES)] * len(right)
        tiles.configure(shapes)

    def _at(self, task: _Task, number: TirExpr) -> _Block:
        """Return block `number` of a task."""
        if self.blocking.pixels_first:
            pixels, channels = number // task.blocks, number % task.blocks
        else:
            pixels, channels = number % self.pixel_blocks, number // self.pixel_blocks
        last = self.tiles.count - self.block.pixels
        return _Block(
            number=number,
            tile=bind(tirx.min(pixels * self.block.pixels, last)),
            channels=bind(task.first + channels),
        )

    def _block(self, task: _Task, number: TirExpr) -> None:
        """Emit the products of one block, and the epilogue of the block before it."""
        block = self._at(task, number)
        cells = [
            (row, column if row % 2 == 0 else self.block.channels - 1 - column)
            for row in range(self.block.pixels)
            for column in range(self.block.channels)
        ]
        for register in range(self.block.accumulators):
            tiles.zero(register)
        places = [self.tiles.first(block.tile + index) for index in range(self.block.pixels)]
        offsets = [bind(task.base + self.tiles.offset(*place)) for place in places]
        self._reduce(task, block, offsets, cells)
        start = bind(number % 2 * (self.lines * self.width))
        for row, column in cells:
            where = start + row * self.tiles.rows * self.width + column * LANES
            tiles.store(row * self.block.channels + column, task.sums, where, 4 * self.width)

    def _reduce(
        self, task: _Task, block: _Block, offsets: list[TirExpr], cells: list[tuple[int, int]]
    ) -> None:
        """Emit the reduction of one block."""
        geometry = self.geometry
        size = self.block.channels * self.halves * _TILE
        steps = self.kernel.steps
        base = bind(block.channels * (steps * size))
        share = -(-self.lines // steps)

        def step(offset: TirExpr, number: TirExpr) -> None:
            offset = bind(offset)
            weights = bind(base + number * size)
            self._products(task, [place + offset for place in offsets], cells, weights)
            if not self.blocking.pixels_first:
                self._prefetch(block, weights + steps * size, size)
            first = bind(number * share)
            with T.If(tirx.all(block.number > 0, first < self.lines)), T.Then():
                self._finish(task, block.number, first, share)

        first = bind(self.kernel.first(block.channels))
        geometry.reduce(self.blocking.rows, step, first, self.kernel.blocks)

    def _prefetch(self, block: _Block, weights: TirExpr, size: int) -> None:
        """Prefetch this block's share of the weights for the same step of the next channel block.

        All pixel blocks of a task take part, so that memory transfers overlap with tile products.
        """
        share = -(-size // (_LINE * self.pixel_blocks))
        first = weights + block.tile // self.block.pixels * (share * _LINE)
        for line in range(share):
            emit.prefetch(self.weights, first + line * _LINE)

    def _products(
        self,
        task: _Task,
        offsets: list[TirExpr],
        cells: list[tuple[int, int]],
        weights: TirExpr,
    ) -> None:
        """Emit one step of every accumulator.

        Split operands need all products except that of the low halves.
        """
        left, right = (Operands(registers) for registers in self.block.operands(self.halves))
        stride = 2 * self.geometry.pixel_stride
        low = self.geometry.low(self.blocking.rows)

        def load_pixels(row: int, half: int, register: int) -> None:
            tiles.load(register, task.operand, offsets[row] + half * low, stride)

        def load_weights(column: int, half: int, register: int) -> None:
            where = weights + (column * self.halves + half) * _TILE
            tiles.load(register, self.weights, where, ROW_BYTES)

        for row, column in cells:
            for first, second in ((0, 0), (0, 1), (1, 0))[: 2 * self.halves - 1]:
                tiles.dot(
                    row * self.block.channels + column,
                    left.get((row, first), partial(load_pixels, row, first)),
                    right.get((column, second), partial(load_weights, column, second)),
                )

    def _finish(self, task: _Task, number: TirExpr, first: TirExpr, count: int) -> None:
        """Emit epilogue and store of `count` pixels from `first` on, in the previous block."""
        before = bind(number - 1)
        block = self._at(task, before)
        start = bind(before % 2 * (self.lines * self.width))
        with emit.serial(count) as index:
            row = (
                bind(first + index)
                if self.lines % count == 0
                else tirx.min(first + index, self.lines - 1)
            )
            line, pixel = self.tiles.first(block.tile + row // self.tiles.rows)
            pixel = bind(pixel + row % self.tiles.rows)
            at, exists = self._where(task, line, pixel)
            store = partial(self._store, task, at, bind(start + row * self.width), block)
            if exists is None:
                store()
            else:
                with T.If(exists), T.Then():
                    store()

    def _where(
        self, task: _Task, line: TirExpr, number: TirExpr
    ) -> tuple[tuple[TirExpr, TirExpr, TirExpr], TirExpr | None]:
        """Return image, row and column of a pixel, and the condition that it exists.

        The condition is None if all pixels exist.
        """
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
        block: _Block,
    ) -> None:
        """Emit epilogue and store of one pixel; the last block stores only existing channels."""
        blocks, rest = divmod(self.conv.out_channels, self.width)
        full = partial(self._lanes, task, at, sums, block, self.width)
        if not rest:
            full()
        elif not blocks:
            self._lanes(task, at, sums, block, rest)
        else:
            end = partial(self._lanes, task, at, sums, block, rest)
            emit.when(block.channels < blocks, full, end)

    def _lanes(
        self,
        task: _Task,
        at: tuple[TirExpr, TirExpr, TirExpr],
        sums: TirExpr,
        block: _Block,
        channels: int,
    ) -> None:
        """Emit epilogue and store of the first `channels` channels of a block."""
        image, y, x = at
        result = self.kernel.result
        for first in range(0, channels, self.piece):
            lanes = min(channels - first, self.piece)
            where = (image, block.channels * self.width + first, y, x)
            value = emit.load(task.sums, sums + first, lanes)
            value = self.kernel.epilogue.evaluate(value, where, lanes, self.buffers)
            result.store(self.out, value, result.offset(*where), lanes)
