"""Attention in one kernel: the scores of a few rows stay in a core's cache.

A task computes blocks of rows of one matrix. Scores are computed with the rows as lanes of vectors:
then the softmax is element-wise, and keys and values are read where they are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod

from tvm_passes.cpu.emit import TirExpr
from tvm_passes.cpu.host import VectorUnit
from tvm_passes.cpu.tiling import widest_tile
from tvm_passes.strides import Strided

_TASK_FLOPS = 100_000
"""Minimum number of operations of a task; below it, starting threads costs more than it gains."""
_ROW_VECTORS = 2
"""Vectors of rows in a block; as many fill the registers with sums."""


@dataclass(frozen=True, kw_only=True)
class AttentionTensor:
    """A tensor of the kernel: the leading axes, then two axes of each matrix."""

    index: int
    """Index of the parameter that holds it."""
    where: Strided
    """Positions of its elements."""

    def base(self, digits: Sequence[TirExpr]) -> TirExpr:
        """Return the offset of a matrix, given its index along each leading axis."""
        offset: TirExpr = self.where.start
        for digit, stride, size in zip(digits, self.where.strides, self.where.shape, strict=False):
            if size > 1 and stride:
                offset = offset + digit * stride
        return offset

    @property
    def row(self) -> int:
        """Stride from one row of a matrix to the next; 0 for a single row."""
        return self.where.strides[-2] if self.where.shape[-2] > 1 else 0

    @property
    def column(self) -> int:
        """Stride from one column of a matrix to the next; 0 for a single column."""
        return self.where.strides[-1] if self.where.shape[-1] > 1 else 0


@dataclass(frozen=True, kw_only=True)
class Attention:
    """softmax(queries · keys · scale + masks) · values, for each place of the leading axes."""

    leading: tuple[int, ...]
    """Extents that count the matrices."""
    rows: int
    """Rows of queries, and of the result."""
    keys: int
    """Columns of keys, rows of values."""
    depth: int
    """Columns of queries, rows of keys."""
    columns: int
    """Columns of values, and of the result."""
    scale: float
    """Factor of the scores."""
    query: AttentionTensor
    """Queries: (rows, depth)."""
    key: AttentionTensor
    """Keys: (depth, keys)."""
    value: AttentionTensor
    """Values: (keys, columns)."""
    masks: tuple[AttentionTensor, ...]
    """Terms of the scores: (rows, keys), with an extent of 1 where they are broadcast."""
    factors: tuple[AttentionTensor, ...]
    """Further factors of the scores, with one number for each matrix."""
    result: Strided
    """Positions of the results: (rows, columns)."""
    unit: VectorUnit
    """Vector instructions and threads of the machine."""

    @property
    def widths(self) -> tuple[int, ...]:
        """Lanes of each vector of a block of rows."""
        lanes = self.unit.lanes
        whole, rest = divmod(min(self.rows, _ROW_VECTORS * lanes), lanes)
        return (lanes,) * whole + ((rest,) if rest else ())

    @property
    def height(self) -> int:
        """Rows of a block."""
        return sum(self.widths)

    @property
    def blocks(self) -> int:
        """Blocks of one matrix; the last one overlaps its predecessor."""
        return -(-self.rows // self.height)

    @property
    def blocks_per_task(self) -> int:
        """Blocks of one task."""
        flops = 2 * self.height * self.keys * (self.depth + self.columns)
        most = max(prod(self.leading) * self.blocks // self.unit.threads, 1)
        return min(max(_TASK_FLOPS // flops, 1), most)

    @property
    def tasks(self) -> int:
        """Number of independent tasks."""
        return -(-prod(self.leading) * self.blocks // self.blocks_per_task)

    @property
    def hints(self) -> Mapping[str, float]:
        """Blocking, as features for cost models."""
        return {
            "kernel_attention": 1.0,
            "tasks": self.tasks,
            "tile_width": even_height(self.keys, len(self.widths), self.unit),
            "tile_vectors": len(self.widths),
            "lanes_filled": self.rows / (self.blocks * len(self.widths) * self.unit.lanes),
        }


def even_height(count: int, vectors: int, unit: VectorUnit) -> int:
    """Return the height of equal register tiles of `count` rows, each of so many vectors."""
    tiles = -(-count // widest_tile(vectors, unit))
    return -(-count // tiles)
