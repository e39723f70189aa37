"""Products of matrices read in place, as in attention; the right-hand ones stay in the cache."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod

from tvm.tirx.script import builder as T

from tvm_passes.cpu import emit
from tvm_passes.cpu.emit import Accumulator, Buffer, TirExpr, bind, splat
from tvm_passes.cpu.epilogue import Epilogue, read_epilogue
from tvm_passes.cpu.host import VectorUnit
from tvm_passes.cpu.plan import KernelPlan
from tvm_passes.cpu.subgraph import KernelSubgraph, Param, Value, as_rows, is_plain
from tvm_passes.cpu.tiling import widest_tile
from tvm_passes.cpu.view import View, view

_TASK_FLOPS = 100_000
"""Minimum number of operations of a task; below it, starting threads costs more than it gains."""


_ROW_VECTORS = 16
"""Vectors of a register tile that is one row.

Memory then delivers a kilobyte of each row of the right-hand matrix, and the multiply-adds are
independent.
"""


@dataclass(frozen=True, kw_only=True)
class Operand:
    """Row-major matrices in memory."""

    view: View
    """Memory layout of all their rows together."""
    leading: tuple[int, ...]
    """Extents that count the matrices; 1 along an axis over which one matrix is broadcast."""
    rows: int
    """Rows of one matrix."""

    def offset(
        self, full: Sequence[int], matrix: TirExpr, row: TirExpr, column: TirExpr
    ) -> TirExpr:
        """Return the offset of the element from which a result is computed.

        Parameters
        ----------
        full
            Extents that count the results' matrices.
        matrix
            Index of the result's matrix in these extents.
        row, column
            Position in the operand's matrix.
        """
        return self.view.offset(0, column, 0, self._number(full, matrix) * self.rows + row)

    def _number(self, full: Sequence[int], matrix: TirExpr) -> TirExpr:
        """Return the index of the operand's matrix for a result's matrix."""
        own = (1,) * (len(full) - len(self.leading)) + self.leading
        if own == tuple(full):
            return matrix
        number, own_step, step = 0, 1, 1
        for extent, size in zip(reversed(full), reversed(own), strict=True):
            if size > 1:
                number = number + matrix // step % extent * own_step
                own_step *= extent
            step *= extent
        return bind(number)


@dataclass(frozen=True, kw_only=True)
class BatchedProduct:
    """Products C[i] = A[i] B[i] of matrices A (rows, depth) and B (depth, columns)."""

    leading: tuple[int, ...]
    """Extents that count the matrices C."""
    rows: int
    """Rows of A and C."""
    depth: int
    """Columns of A and rows of B."""
    columns: int
    """Columns of B and C."""
    left: Operand
    """Matrices A."""
    right: Operand
    """Matrices B."""
    result: View
    """Memory layout of all rows of C together."""
    unit: VectorUnit
    """Vector instructions and threads of the machine."""
    epilogue: Epilogue
    """Operators that are applied to the sums."""

    @property
    def vectors(self) -> int:
        """Vectors in each row of a register tile."""
        available = -(-self.columns // self.unit.lanes)
        if self.rows > 1:
            return min(4 if self.unit.registers >= 32 else 2, available)
        shared = -(-available * prod(self.leading) // self.unit.threads)
        return max(min(_ROW_VECTORS * self.unit.registers // 32, available, shared), 1)

    @property
    def height(self) -> int:
        """Rows of a register tile."""
        tiles = -(-self.rows // widest_tile(self.vectors, self.unit))
        return -(-self.rows // tiles)

    @property
    def across(self) -> int:
        """Tiles along a row of C."""
        return -(-self.columns // (self.vectors * self.unit.lanes))

    @property
    def tiles(self) -> int:
        """Tiles of all matrices; the last ones along a matrix's rows overlap their predecessors."""
        return prod(self.leading) * -(-self.rows // self.height) * self.across

    @property
    def tiles_per_task(self) -> int:
        """Tiles of one task."""
        flops = 2 * self.height * self.depth * self.vectors * self.unit.lanes
        return min(max(_TASK_FLOPS // flops, 1), self.tiles)

    @property
    def tasks(self) -> int:
        """Number of independent tasks."""
        return -(-self.tiles // self.tiles_per_task)

    @property
    def hints(self) -> Mapping[str, float]:
        """Blocking, as features for cost models."""
        lanes = self.unit.lanes
        return {
            "kernel_batched": 1.0,
            "tasks": self.tasks,
            "tile_width": self.height,
            "tile_vectors": self.vectors,
            "lanes_filled": self.columns / (lanes * -(-self.columns // lanes)),
        }

    def emit(self, buffers: Mapping[int, Buffer], left: Buffer, right: Buffer, out: Buffer) -> None:
        """Emit the kernel; arguments are the flat buffers of the operands."""
        down = -(-self.rows // self.height)
        full, rest = self._widths()
        with emit.parallel(self.tasks) as task:
            first = bind(task * self.tiles_per_task)
            exact = self.tiles % self.tiles_per_task == 0
            count = T.min(self.tiles_per_task, self.tiles - first)
            with emit.serial(self.tiles_per_task if exact else count) as offset:
                tile = bind(first + offset)
                across, line = bind(tile % self.across), bind(tile // self.across)
                matrix = bind(line // down)
                row = bind(T.min(line % down * self.height, self.rows - self.height))
                at = (matrix, row, bind(across * sum(full)))

                def compute(
                    widths: Sequence[int], at: tuple[TirExpr, TirExpr, TirExpr] = at
                ) -> None:
                    self._tile(at, widths, buffers, left, right, out)

                if not rest:
                    compute(full)
                elif self.across == 1:
                    compute(rest)
                else:
                    last = self.across - 1
                    emit.when(across < last, lambda: compute(full), lambda: compute(rest))

    def _widths(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Return the lanes of each vector of a whole tile, and of a row's last, partial tile."""
        lanes = self.unit.lanes
        full = (lanes,) * self.vectors
        whole, partial = divmod(self.columns % sum(full), lanes)
        return full, (lanes,) * whole + ((partial,) if partial else ())

    def _tile(
        self,
        at: tuple[TirExpr, TirExpr, TirExpr],
        widths: Sequence[int],
        buffers: Mapping[int, Buffer],
        left: Buffer,
        right: Buffer,
        out: Buffer,
    ) -> None:
        """Emit one register tile: reduction, epilogue and store."""
        matrix, row, column = at
        sums = [[Accumulator(lanes) for lanes in widths] for _ in range(self.height)]
        starts = [sum(widths[:index]) for index in range(len(widths))]
        for accumulators in sums:
            for one in accumulators:
                one.zero()
        views, full = (self.left.view, self.right.view), self.leading
        from_left = bind(self.left.offset(full, matrix, row, 0))
        from_right = bind(self.right.offset(full, matrix, 0, column))
        with emit.serial(self.depth) as k:
            base = bind(from_right + k * views[1].w)
            vectors = [
                bind(views[1].load(right, base + start, lanes))
                for start, lanes in zip(starts, widths, strict=True)
            ]
            for y, accumulators in enumerate(sums):
                value = bind(views[0].load(left, from_left + y * views[0].w + k))
                for one, vector in zip(accumulators, vectors, strict=True):
                    one.set(one.value + vector * splat(value, one.lanes))
        for y, accumulators in enumerate(sums):
            line = bind(matrix * self.rows + row + y)
            for one, start in zip(accumulators, starts, strict=True):
                where = (0, column + start, 0, line)
                result = self.epilogue.evaluate(one.value, where, one.lanes, buffers)
                self.result.store(out, result, self.result.offset(*where), one.lanes)


def plan_batched(subgraph: KernelSubgraph, unit: VectorUnit) -> KernelPlan | str:
    """Plan a product of matrices with broadcast leading dimensions and its epilogue."""
    anchor = subgraph.nodes[0]
    if not is_plain(subgraph):
        return anchor.operator
    flat = as_rows(subgraph)
    epilogue = read_epilogue(flat, flat.nodes[0])
    if isinstance(epilogue, str):
        return epilogue
    left, right = anchor.args
    if not isinstance(left, Param) or not isinstance(right, Param):
        return anchor.operator
    if left.dtype != "float32" or right.dtype != "float32" or min(map(_rank, anchor.args)) < 2:
        return anchor.operator
    product = BatchedProduct(
        leading=anchor.shape[:-2],
        rows=left.shape[-2],
        depth=left.shape[-1],
        columns=right.shape[-1],
        left=_operand(left),
        right=_operand(right),
        result=flat.result_view,
        unit=unit,
        epilogue=epilogue,
    )
    return KernelPlan(
        subgraph=subgraph,
        emit=lambda buffers, out: product.emit(
            buffers, buffers[left.index], buffers[right.index], out
        ),
        hints=product.hints,
    )


def _rank(value: Value) -> int:
    return len(value.shape)


def _operand(param: Param) -> Operand:
    rows = (prod(param.shape[:-1]), param.shape[-1])
    return Operand(view=view(rows, param.layout), leading=param.shape[:-2], rows=param.shape[-2])
