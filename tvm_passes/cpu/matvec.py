"""Product of one row with a constant matrix, limited by the memory bandwidth for the matrix.

The fewer bytes a weight has, the faster the product. With float32 activations a weight has 4 bytes;
with bfloat16, 2; with split storage, 3: the upper 24 bits of float32, whose significand of 16 bits
is that of a pair of bfloat16.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import chain

import ml_dtypes
import numpy as np
from tvm import tirx

from tvm_passes.arrays import own_pages
from tvm_passes.cpu import emit
from tvm_passes.cpu.emit import Accumulator, Buffer, TirExpr, bind, load, splat
from tvm_passes.cpu.epilogue import Epilogue
from tvm_passes.cpu.host import VectorUnit
from tvm_passes.cpu.view import View
from tvm_passes.layout import BF16, SPLIT

VECTORS = 4
"""Vectors of results in a tile: one step reads this many whole cache lines."""
STEPS = 2
"""Rows of the matrix per iteration, each with separate accumulators."""
_AHEAD = 64
"""Number of rows by which a prefetch precedes the use."""
_FAR_BYTES = 60 << 20
"""Minimum size of a matrix whose rows are prefetched, bytes.

Without prefetching, kernels that unpack weights of such matrices take 1.2 to 1.5 times as long. The
hardware prefetches smaller ones and float32 itself; there, prefetching costs a twentieth.
"""


@dataclass(frozen=True, kw_only=True)
class Format:
    """Storage of a tile row's weights."""

    dtype: str
    """Element type of the packed weights."""
    words: int
    """Number of vectors of `dtype` per row."""
    pack: Callable[[np.ndarray], np.ndarray]
    """Packs (…, column of the tile) in float32 to (…, word), for :data:`VECTORS` vectors of
    columns.
    """
    unpack: Callable[[list[TirExpr], int], list[TirExpr]]
    """Converts vectors of words with so many lanes to vectors of weights in float32."""


def _uppers(bits: np.ndarray) -> np.ndarray:
    """Pack the upper halves of float32, two vectors of columns per word.

    Unpacking is a shift and a mask.
    """
    upper = (bits >> 16).reshape(*bits.shape[:-1], VECTORS // 2, 2, -1)
    return (upper[..., 0, :] | upper[..., 1, :] << 16).reshape(*bits.shape[:-1], -1)


def _pack_halves(tiles: np.ndarray) -> np.ndarray:
    """Pack weights rounded to bfloat16."""
    return _uppers(tiles.astype(ml_dtypes.bfloat16).astype("float32").view("uint32"))


def _pack_three_quarters(tiles: np.ndarray) -> np.ndarray:
    """Pack the upper 24 bits of weights, rounded."""
    bits = np.ascontiguousarray(tiles).view("uint32")
    bits = np.where(np.isfinite(tiles), bits + 0x80, bits).astype("uint32")
    third = (bits >> 8 & 0xFF).reshape(*bits.shape[:-1], VECTORS, -1)
    places = np.arange(0, 8 * VECTORS, 8, dtype="uint32")[:, None]
    thirds = np.bitwise_or.reduce(third << places, axis=-2)
    return np.concatenate([_uppers(bits), thirds], axis=-1)


def _unpack_halves(words: list[TirExpr], lanes: int) -> list[TirExpr]:
    """Unpack weights in bfloat16."""
    return [_floats(half, lanes) for word in words for half in _both(word, lanes)]


def _unpack_three_quarters(words: list[TirExpr], lanes: int) -> list[TirExpr]:
    """Unpack weights of 24 bits."""
    *uppers, thirds = words
    halves = [half for word in uppers for half in _both(word, lanes)]
    mask = splat(tirx.const(0xFF00, "uint32"), lanes)
    bytes_up = [8 - 8 * index for index in range(VECTORS)]
    return [
        _floats(half | (_shifted(thirds, by, lanes) & mask), lanes)
        for half, by in zip(halves, bytes_up, strict=True)
    ]


def _both(word: TirExpr, lanes: int) -> tuple[TirExpr, TirExpr]:
    """Return the two halves of a word as bits of float32."""
    mask = splat(tirx.const(0xFFFF0000, "uint32"), lanes)
    return _shifted(word, 16, lanes), word & mask


def _shifted(word: TirExpr, by: int, lanes: int) -> TirExpr:
    """Shift a vector to the left by `by` bits; to the right if negative."""
    count = splat(tirx.const(abs(by), "uint32"), lanes)
    return word << count if by > 0 else word >> count if by < 0 else word


def _floats(bits: TirExpr, lanes: int) -> TirExpr:
    """Reinterpret bits as float32."""
    return tirx.reinterpret(f"float32x{lanes}" if lanes > 1 else "float32", bits)


FORMATS: Mapping[str, Format] = {
    "": Format(dtype="float32", words=VECTORS, pack=lambda w: w, unpack=lambda w, _lanes: w),
    BF16: Format(dtype="uint32", words=2, pack=_pack_halves, unpack=_unpack_halves),
    SPLIT: Format(
        dtype="uint32", words=3, pack=_pack_three_quarters, unpack=_unpack_three_quarters
    ),
}
"""Format by storage of the activations."""


@dataclass(frozen=True, kw_only=True)
class MatrixVector:
    """Product y = x W of x (depth) and W (depth, columns)."""

    depth: int
    """Elements of x."""
    columns: int
    """Elements of y."""
    source: View
    """Memory layout of x."""
    result: View
    """Memory layout of y."""
    unit: VectorUnit
    """Vector instructions and threads of the machine."""
    epilogue: Epilogue
    """Operators that are applied to the sums."""

    @property
    def format(self) -> Format:
        """Storage of the weights."""
        return FORMATS[self.source.storage]

    @property
    def tile(self) -> int:
        """Columns of a tile."""
        return VECTORS * self.unit.lanes

    @property
    def tiles(self) -> int:
        """Number of tiles; the last is padded with zeros."""
        return -(-self.columns // self.tile)

    @property
    def hints(self) -> Mapping[str, float]:
        """Blocking, as features for cost models."""
        return {
            "kernel_stream": 1.0,
            "tasks": self.tiles,
            "lanes_filled": self.columns / (self.tiles * self.tile),
        }

    @property
    def packed_size(self) -> int:
        """Number of elements of the packed matrix."""
        return self.tiles * self.depth * self._row

    @property
    def _prefetches(self) -> bool:
        """True if the kernel prefetches the matrix."""
        return self.format.words < VECTORS and 4 * self.packed_size > _FAR_BYTES

    @property
    def _row(self) -> int:
        """Number of elements in a row of a tile."""
        return self.format.words * self.unit.lanes

    def pack(self, matrix: np.ndarray) -> np.ndarray:
        """Pack W as (tile, row, column of the tile), flat: each tile is one sequential stream."""
        packed = own_pages((self.tiles, self.depth, self._row), self.format.dtype)
        tile = np.zeros((self.depth, self.tile), matrix.dtype)
        for index in range(self.tiles):
            columns = matrix[:, index * self.tile : (index + 1) * self.tile]
            tile[:, : columns.shape[1]] = columns
            tile[:, columns.shape[1] :] = 0
            packed[index] = self.format.pack(tile)
        return packed.reshape(-1)

    def emit(
        self, buffers: Mapping[int, Buffer], source: Buffer, weights: Buffer, out: Buffer
    ) -> None:
        """Emit the kernel.

        The arguments are those of :meth:`ConvolutionKernel.emit`.
        """
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
        """Emit the reduction of one tile, and its epilogue."""
        lanes = self.unit.lanes
        sums = [[Accumulator(lanes) for _ in range(VECTORS)] for _ in range(STEPS)]
        for accumulator in chain.from_iterable(sums):
            accumulator.zero()
        base = bind(tile * (self.depth * self._row))

        def step(row: TirExpr, accumulators: list[Accumulator]) -> None:
            place = self.source.offset(0, row, 0, 0)
            value = bind(splat(self.source.load(source, place), lanes))
            words = [
                bind(load(weights, base + row * self._row + index * lanes, lanes))
                for index in range(self.format.words)
            ]
            if self._prefetches:
                for index in range(self.format.words):
                    emit.prefetch(weights, base + (row + _AHEAD) * self._row + index * lanes)
            held = self.format.unpack(words, lanes)
            for accumulator, weight in zip(accumulators, held, strict=True):
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
        """Emit epilogue and store of one vector of results, without columns that do not exist."""
        lanes = self.unit.lanes
        column = tile * self.tile + index * lanes

        def write(count: int) -> None:
            value = emit.lanes_of(total, 0, count, lanes)
            result = self.epilogue.evaluate(value, (0, column, 0, 0), count, buffers)
            self.result.store(out, result, self.result.offset(0, column, 0, 0), count)

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
