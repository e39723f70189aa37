"""Product of one row with a constant matrix: bound by the speed at which memory delivers the matrix."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import chain

import numpy as np

from tvm_passes.cpu import emit
from tvm_passes.cpu.emit import Accumulator, Buffer, TirExpr, bind, load, splat, store
from tvm_passes.cpu.epilogue import Epilogue
from tvm_passes.cpu.host import VectorUnit

VECTORS = 4
"""Vectors of results in a tile: what memory delivers in one step is this many whole cache lines."""
STEPS = 2
"""Rows of the matrix per iteration, each with its own accumulators."""


@dataclass(frozen=True, kw_only=True)
class MatrixVector:
    """y = x W for x of `depth` elements and W of `depth` times `columns`."""

    depth: int
    columns: int
    unit: VectorUnit
    epilogue: Epilogue

    @property
    def tile(self) -> int:
        """Columns of a tile."""
        return VECTORS * self.unit.lanes

    @property
    def tiles(self) -> int:
        """Number of tiles; the last is filled up with zeros."""
        return -(-self.columns // self.tile)

    @property
    def hints(self) -> Mapping[str, float]:
        """The blocking, for cost models."""
        return {
            "kernel_stream": 1.0,
            "tasks": self.tiles,
            "lanes_filled": self.columns / (self.tiles * self.tile),
        }

    @property
    def packed_size(self) -> int:
        """Elements of the packed matrix."""
        return self.tiles * self.tile * self.depth

    def pack(self, matrix: np.ndarray) -> np.ndarray:
        """W as (tile, row, column of the tile), flat: each tile is one sequential stream."""
        packed = np.zeros((self.tiles, self.depth, self.tile), matrix.dtype)
        for index in range(self.tiles):
            columns = matrix[:, index * self.tile : (index + 1) * self.tile]
            packed[index, :, : columns.shape[1]] = columns
        return packed.reshape(-1)

    def emit(
        self, buffers: Mapping[int, Buffer], source: Buffer, weights: Buffer, out: Buffer
    ) -> None:
        """Emit the kernel; arguments as those of :meth:`ConvolutionKernel.emit`."""
        with emit.parallel(self.tiles) as tile:
            self._tile(tile, buffers, source, weights, out)

    def _tile(
        self,
        tile: TirExpr,
        buffers: Mapping[int, Buffer],
        source: Buffer,
        weights: Buffer,
        out: Buffer,
    ) -> None:
        lanes = self.unit.lanes
        sums = [[Accumulator(lanes) for _ in range(VECTORS)] for _ in range(STEPS)]
        for accumulator in chain.from_iterable(sums):
            accumulator.zero()
        base = bind(tile * (self.depth * self.tile))

        def step(row: TirExpr, accumulators: list[Accumulator]) -> None:
            value = bind(splat(source[row], lanes))
            for index, accumulator in enumerate(accumulators):
                weight = load(weights, base + row * self.tile + index * lanes, lanes)
                accumulator.set(accumulator.value + weight * value)

        with emit.serial(self.depth // STEPS) as iteration:
            for offset in range(STEPS):
                step(iteration * STEPS + offset, sums[offset])
        for row in range(self.depth - self.depth % STEPS, self.depth):
            step(row, sums[0])
        for index in range(VECTORS):
            total = sums[0][index].value
            for other in sums[1:]:
                total = total + other[index].value
            self._finish(tile, index, bind(total), buffers, out)

    def _finish(
        self,
        tile: TirExpr,
        index: int,
        total: TirExpr,
        buffers: Mapping[int, Buffer],
        out: Buffer,
    ) -> None:
        lanes = self.unit.lanes
        column = tile * self.tile + index * lanes

        def write(count: int) -> None:
            value = emit.lanes_of(total, 0, count, lanes)
            result = self.epilogue.evaluate(value, (0, column, 0, 0), count, buffers)
            store(out, result, column, count)

        used = self.columns - (self.tiles - 1) * self.tile - index * lanes
        last = min(max(used, 0), lanes)
        if last == lanes:
            write(lanes)
        elif self.tiles == 1:
            if last:
                write(last)
        else:
            full = tile < self.tiles - 1
            emit.when(full, lambda: write(lanes), lambda: write(last) if last else emit.nothing())
