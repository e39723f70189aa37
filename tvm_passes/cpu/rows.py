"""Kernels over each row of a matrix: softmax, layer normalisation."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from tvm.tirx.script import builder as T

from tvm_passes.cpu import emit, vector_math
from tvm_passes.cpu.emit import Accumulator, Buffer, TirExpr, across, bind, load, splat, store
from tvm_passes.cpu.epilogue import Epilogue, read_epilogue
from tvm_passes.cpu.host import VectorUnit
from tvm_passes.cpu.plan import KernelPlan
from tvm_passes.cpu.subgraph import KernelSubgraph, OperatorCall, Param, as_rows, is_plain
from tvm_passes.cpu.view import four_dimensional

_TASK_ELEMENTS = 4096
"""Minimum number of elements of a task; below it, starting threads costs more than it gains."""
_ACCUMULATORS = 4
"""Number of independent sums, so that additions do not wait for each other."""

Combine = Callable[[TirExpr, TirExpr], TirExpr]
"""Combines two values."""
Read = Callable[[TirExpr, int], TirExpr]
"""Returns the vector of a row at (column, lanes)."""
Emit = Callable[["_Row"], None]
"""Emits one row."""


@dataclass(frozen=True, kw_only=True)
class _Rows:
    """A matrix whose rows are independent."""

    rows: int
    """Number of rows."""
    columns: int
    """Number of columns."""
    unit: VectorUnit
    """Vector instructions and threads of the machine."""
    epilogue: Epilogue
    """Operators that are applied to the results."""

    @property
    def rows_per_task(self) -> int:
        """Rows of one task."""
        return min(max(_TASK_ELEMENTS // self.columns, 1), self.rows)

    @property
    def tasks(self) -> int:
        """Number of independent tasks."""
        return -(-self.rows // self.rows_per_task)

    @property
    def hints(self) -> Mapping[str, float]:
        """Blocking, as features for cost models."""
        lanes = self.unit.lanes
        filled = self.columns / (lanes * -(-self.columns // lanes))
        return {"kernel_rows": 1.0, "tasks": self.tasks, "lanes_filled": filled}

    def emit(self, buffers: Mapping[int, Buffer], source: Buffer, out: Buffer, row: Emit) -> None:
        """Emit the loops over all rows."""
        with emit.parallel(self.tasks) as task:
            first = bind(task * self.rows_per_task)
            exact = self.rows % self.rows_per_task == 0
            count = T.min(self.rows_per_task, self.rows - first)
            with emit.serial(self.rows_per_task if exact else count) as offset:
                row(_Row(self, bind(first + offset), buffers, source, out))


@dataclass(frozen=True)
class _Row:
    """Emission of one row, a vector at a time."""

    matrix: _Rows
    """Matrix of the row."""
    index: TirExpr
    """Index of the row."""
    buffers: Mapping[int, Buffer]
    """Flat buffer of each parameter by its index, for the epilogue."""
    source: Buffer
    """Buffer of the input."""
    out: Buffer
    """Buffer of the result."""

    def read(self, column: TirExpr, lanes: int) -> TirExpr:
        """Load a vector of the input."""
        return load(self.source, self.index * self.matrix.columns + column, lanes)

    def reread(self, column: TirExpr, lanes: int) -> TirExpr:
        """Load a vector that :meth:`keep` stored."""
        return load(self.out, self.index * self.matrix.columns + column, lanes)

    def keep(self, value: TirExpr, column: TirExpr, lanes: int) -> TirExpr:
        """Store an intermediate vector at the position of its result."""
        value = bind(value)
        store(self.out, value, self.index * self.matrix.columns + column, lanes)
        return value

    def finish(self, value: Read) -> None:
        """Store all results, after the epilogue."""

        def one(column: TirExpr, lanes: int) -> None:
            at = (0, column, 0, self.index)
            result = self.matrix.epilogue.evaluate(value(column, lanes), at, lanes, self.buffers)
            store(self.out, result, self.index * self.matrix.columns + column, lanes)

        lanes = self.matrix.unit.lanes
        full, rest = divmod(self.matrix.columns, lanes)
        if full:
            with emit.serial(full) as vector:
                one(bind(vector * lanes), lanes)
        if rest:
            one(full * lanes, rest)

    def reduce(self, read: Read, combine: Combine, start: float) -> TirExpr:
        """Reduce the whole row by `combine` to a scalar, beginning with `start`."""
        lanes = self.matrix.unit.lanes
        full, rest = divmod(self.matrix.columns, lanes)
        count = min(_ACCUMULATORS, max(full, 1))
        sums = [Accumulator(lanes) for _ in range(count)]
        for one in sums:
            one.set(splat(start, lanes))

        def step(vector: TirExpr, into: Accumulator) -> None:
            into.set(combine(into.value, read(bind(vector * lanes), lanes)))

        if full // count:
            with emit.serial(full // count) as group:
                for offset, one in enumerate(sums):
                    step(group * count + offset, one)
        for vector in range(full - full % count, full):
            step(vector, sums[vector % count])
        total = _halved([one.value for one in sums], combine)
        parts = [across(bind(total), lanes, combine)]
        if rest:
            parts.append(across(bind(read(full * lanes, rest)), rest, combine))
        return bind(_halved(parts, combine))


def _halved(values: Sequence[TirExpr], combine: Combine) -> TirExpr:
    """Combine values pairwise."""
    while len(values) > 1:
        pairs = list(_pairs(values))
        values = [combine(*pair) if len(pair) == 2 else pair[0] for pair in pairs]
    return values[0]


def _pairs(values: Sequence[TirExpr]) -> Iterator[Sequence[TirExpr]]:
    """Yield consecutive pairs; the last one may have a single value."""
    return (values[start : start + 2] for start in range(0, len(values), 2))


def _softmax(row: _Row) -> None:
    """Emit exp(x - max), divided by its sum."""
    largest = row.reduce(row.read, T.max, float("-inf"))

    def exponential(column: TirExpr, lanes: int) -> TirExpr:
        shifted = row.read(column, lanes) - splat(largest, lanes)
        return row.keep(vector_math.exp(shifted, lanes), column, lanes)

    share = bind(1.0 / row.reduce(exponential, lambda a, b: a + b, 0.0))
    row.finish(lambda column, lanes: row.reread(column, lanes) * splat(share, lanes))


def plan_softmax(subgraph: KernelSubgraph, unit: VectorUnit) -> KernelPlan | str:
    """Plan a softmax over the last axis."""
    axis = int(subgraph.nodes[0].attrs.axis)
    return _plan(subgraph, unit, [axis], lambda _anchor, _buffers: _softmax)


def plan_layer_norm(subgraph: KernelSubgraph, unit: VectorUnit) -> KernelPlan | str:
    """Plan a layer normalisation over the last axis."""

    def emitter(anchor: OperatorCall, buffers: Mapping[int, Buffer]) -> Emit:
        scale, shift = (buffers[arg.index] for arg in anchor.args[1:] if isinstance(arg, Param))

        def emit_row(row: _Row) -> None:
            """Emit (x - mean) / sqrt(variance + epsilon) · scale + shift.

            The mean is taken of differences from the first element. The mean itself would be
            rounded to its own last digit, which may be as large as the deviation.
            """
            count = float(row.matrix.columns)
            first = bind(row.read(0, 1))

            def difference(column: TirExpr, lanes: int) -> TirExpr:
                return row.read(column, lanes) - splat(first, lanes)

            mean = bind(row.reduce(difference, lambda a, b: a + b, 0.0) / count)

            def square(column: TirExpr, lanes: int) -> TirExpr:
                away = bind(difference(column, lanes) - splat(mean, lanes))
                return away * away

            variance = row.reduce(square, lambda a, b: a + b, 0.0) / count
            factor = bind(1.0 / T.sqrt(variance + float(anchor.attrs.epsilon)))

            def normal(column: TirExpr, lanes: int) -> TirExpr:
                away = difference(column, lanes) - splat(mean, lanes)
                scaled = away * splat(factor, lanes) * load(scale, column, lanes)
                return scaled + load(shift, column, lanes)

            row.finish(normal)

        return emit_row

    anchor = subgraph.nodes[0]
    if not all(isinstance(arg, Param) and arg.dtype == "float32" for arg in anchor.args):
        return anchor.operator
    if not anchor.attrs.scale or not anchor.attrs.center:
        return anchor.operator
    return _plan(subgraph, unit, [int(axis) for axis in anchor.attrs.axes], emitter)


def _plan(
    subgraph: KernelSubgraph,
    unit: VectorUnit,
    axes: Sequence[int],
    emitter: Callable[[OperatorCall, Mapping[int, Buffer]], Emit],
) -> KernelPlan | str:
    """Plan a kernel over the last axis of plain tensors."""
    if not is_plain(subgraph) or axes not in ([-1], [len(subgraph.nodes[0].shape) - 1]):
        return subgraph.anchor
    flat = as_rows(subgraph)
    anchor = flat.nodes[0]
    source = anchor.args[0]
    epilogue = read_epilogue(flat, anchor)
    if isinstance(epilogue, str):
        return epilogue
    if not isinstance(source, Param) or source.dtype != "float32":
        return anchor.operator
    _, columns, _, rows = four_dimensional(anchor.shape)
    matrix = _Rows(rows=rows, columns=columns, unit=unit, epilogue=epilogue)
    return KernelPlan(
        subgraph=subgraph,
        emit=lambda buffers, out: matrix.emit(
            buffers, buffers[source.index], out, emitter(anchor, buffers)
        ),
        hints=matrix.hints,
    )
