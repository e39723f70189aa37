"""Products of two activations, as attention has them: nothing is packed, the right-hand matrices stay in the cache."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import prod

from tvm.tirx.script import builder as T

from tvm_passes.cpu import emit
from tvm_passes.cpu.emit import Accumulator, Buffer, TirExpr, bind, load, splat, store
from tvm_passes.cpu.epilogue import Epilogue, read_epilogue
from tvm_passes.cpu.host import VectorUnit
from tvm_passes.cpu.plan import Plan
from tvm_passes.cpu.subgraph import Param, Subgraph, as_rows, is_plain, is_stored
from tvm_passes.cpu.tiling import widest_tile

_TASK_FLOPS = 100_000
"""Operations that one task should at least cover: below, starting threads costs more than it gains."""


@dataclass(frozen=True, kw_only=True)
class BatchedProduct:
    """C[i] = A[i] B[i] for `batch` matrices A of (rows, depth) and B of (depth, columns), row-major."""

    batch: int
    rows: int
    depth: int
    columns: int
    unit: VectorUnit
    epilogue: Epilogue

    @property
    def vectors(self) -> int:
        """Vectors of a register tile's row."""
        return min(4 if self.unit.registers >= 32 else 2, -(-self.columns // self.unit.lanes))

    @property
    def height(self) -> int:
        """Rows of a register tile."""
        tiles = -(-self.rows // widest_tile(self.vectors, self.unit))
        return -(-self.rows // tiles)

    @property
    def tiles(self) -> int:
        """Tiles of rows of all matrices; a matrix's last one overlaps the one before."""
        return self.batch * -(-self.rows // self.height)

    @property
    def tiles_per_task(self) -> int:
        """Tiles that one task covers."""
        flops = 2 * self.height * self.depth * self.columns
        return min(max(_TASK_FLOPS // flops, 1), self.tiles)

    @property
    def tasks(self) -> int:
        """Independent tasks."""
        return -(-self.tiles // self.tiles_per_task)

    @property
    def hints(self) -> Mapping[str, float]:
        """The blocking, for cost models."""
        lanes = self.unit.lanes
        return {
            "kernel_batched": 1.0,
            "tasks": self.tasks,
            "tile_width": self.height,
            "tile_vectors": self.vectors,
            "lanes_filled": self.columns / (lanes * -(-self.columns // lanes)),
        }

    def emit(self, buffers: Mapping[int, Buffer], left: Buffer, right: Buffer, out: Buffer) -> None:
        """Emit the kernel."""
        per_matrix = self.tiles // self.batch
        with emit.parallel(self.tasks) as task:
            first = bind(task * self.tiles_per_task)
            exact = self.tiles % self.tiles_per_task == 0
            count = T.min(self.tiles_per_task, self.tiles - first)
            with emit.serial(self.tiles_per_task if exact else count) as offset:
                tile = bind(first + offset)
                matrix = bind(tile // per_matrix)
                row = T.min(tile % per_matrix * self.height, self.rows - self.height)
                for start, end, widths in self._columns():
                    step = sum(widths)
                    with emit.serial((end - start) // step) as index:
                        at = (matrix, bind(row), bind(start + index * step))
                        self._tile(at, widths, buffers, left, right, out)

    def _columns(self) -> list[tuple[int, int, tuple[int, ...]]]:
        """(first column, last, lanes of each vector of a tile) of the whole tiles, and of what is left."""
        lanes = self.unit.lanes
        full = (lanes,) * self.vectors
        rest = self.columns % sum(full)
        whole, partial = divmod(rest, lanes)
        last = (lanes,) * whole + ((partial,) if partial else ())
        bounds = (0, self.columns - rest, self.columns)
        tiles = zip(pairwise(bounds), (full, last), strict=True)
        return [(start, end, widths) for (start, end), widths in tiles if end > start]

    def _tile(
        self,
        at: tuple[TirExpr, TirExpr, TirExpr],
        widths: Sequence[int],
        buffers: Mapping[int, Buffer],
        left: Buffer,
        right: Buffer,
        out: Buffer,
    ) -> None:
        matrix, row, column = at
        sums = [[Accumulator(lanes) for lanes in widths] for _ in range(self.height)]
        starts = [sum(widths[:index]) for index in range(len(widths))]
        for accumulators in sums:
            for one in accumulators:
                one.zero()
        first = bind((matrix * self.rows + row) * self.depth)
        with emit.serial(self.depth) as k:
            base = bind((matrix * self.depth + k) * self.columns + column)
            vectors = [
                bind(load(right, base + start, lanes))
                for start, lanes in zip(starts, widths, strict=True)
            ]
            for y, accumulators in enumerate(sums):
                value = bind(left[first + y * self.depth + k])
                for one, vector in zip(accumulators, vectors, strict=True):
                    one.set(one.value + vector * splat(value, one.lanes))
        for y, accumulators in enumerate(sums):
            line = bind(matrix * self.rows + row + y)
            for one, start in zip(accumulators, starts, strict=True):
                where = (0, column + start, 0, line)
                result = self.epilogue.evaluate(one.value, where, one.lanes, buffers)
                store(out, result, line * self.columns + column + start, one.lanes)


def plan_batched(subgraph: Subgraph, unit: VectorUnit) -> Plan | str:
    """Plan of a product of two activations with equal leading dimensions, with what follows it."""
    flat = as_rows(subgraph) if is_plain(subgraph) else subgraph
    anchor = flat.nodes[0]
    pair = [arg for arg in subgraph.nodes[0].args if isinstance(arg, Param)]
    epilogue = read_epilogue(flat, anchor)
    if isinstance(epilogue, str):
        return epilogue
    if (
        not is_plain(subgraph)
        or is_stored(subgraph)
        or [arg.dtype for arg in pair] != ["float32", "float32"]
    ):
        return anchor.operator
    left, right = pair
    if len(left.shape) < 3 or left.shape[:-2] != right.shape[:-2]:
        return anchor.operator
    product = BatchedProduct(
        batch=prod(left.shape[:-2]),
        rows=left.shape[-2],
        depth=left.shape[-1],
        columns=right.shape[-1],
        unit=unit,
        epilogue=epilogue,
    )
    return Plan(
        subgraph=subgraph,
        emit=lambda buffers, out: product.emit(
            buffers, buffers[left.index], buffers[right.index], out
        ),
        hints=product.hints,
    )
