"""Code of an attention's blocks of rows: queries, scores, exponentials, results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod

from tvm import tirx
from tvm.tirx.script import builder as T

from tvm_passes.cpu import emit, vector_math
from tvm_passes.cpu.attention import Attention, AttentionTensor, even_height
from tvm_passes.cpu.emit import Accumulator, Buffer, TirExpr, bind, load, splat, store
from tvm_passes.cpu.reorder import transpose

_VALUE_VECTORS = 2
"""Maximum number of vectors of a value's columns in a register tile.

With more, tiles have fewer rows, of which those that overlap cost more than values read once again.
"""


def emit_attention(kernel: Attention, buffers: Mapping[int, Buffer], out: Buffer) -> None:
    """Emit the kernel, given the flat buffer of each parameter by its index."""
    total = prod(kernel.leading) * kernel.blocks
    with emit.parallel(kernel.tasks) as task:
        scratch = _Scratch(
            queries=T.alloc_buffer((kernel.depth * kernel.height,), "float32"),
            scores=T.alloc_buffer((kernel.keys * kernel.height,), "float32"),
            shares=T.alloc_buffer((kernel.height,), "float32"),
        )
        first = bind(task * kernel.blocks_per_task)
        exact = total % kernel.blocks_per_task == 0
        count = T.min(kernel.blocks_per_task, total - first)
        with emit.serial(kernel.blocks_per_task if exact else count) as offset:
            block = bind(first + offset)
            row = bind(T.min(block % kernel.blocks * kernel.height, kernel.rows - kernel.height))
            digits = _digits(bind(block // kernel.blocks), kernel.leading)
            _Block(kernel, digits, row, scratch).emit(buffers, out)


def _digits(number: TirExpr, extents: Sequence[int]) -> list[TirExpr]:
    """Return the index along each axis of `extents` of an element with a joint number."""
    digits: list[TirExpr] = []
    for extent in reversed(extents):
        digits.insert(0, bind(number % extent) if extent > 1 else 0)
        number = number // extent
    return digits


@dataclass(frozen=True, kw_only=True)
class _Scratch:
    """Memory of one task."""

    queries: Buffer
    """Scaled queries of a block: (depth, rows of the block)."""
    scores: Buffer
    """Scores of a block, then their exponentials: (keys, rows of the block)."""
    shares: Buffer
    """Inverse of the sum of each row's exponentials."""


@dataclass(frozen=True)
class _Block:
    """Emission of one block of rows."""

    kernel: Attention
    """The kernel."""
    digits: Sequence[TirExpr]
    """Index of the matrix along each leading axis."""
    row: TirExpr
    """First row."""
    scratch: _Scratch
    """Memory of the task."""

    def emit(self, buffers: Mapping[int, Buffer], out: Buffer) -> None:
        """Emit all steps."""
        self._pack(buffers)
        largest = self._scores(buffers)
        self._exponentials(largest)
        self._results(buffers[self.kernel.value.index], out)

    @property
    def _starts(self) -> list[tuple[int, int]]:
        """First row within the block, and lanes, of each vector."""
        widths = self.kernel.widths
        return [(sum(widths[:index]), lanes) for index, lanes in enumerate(widths)]

    def _pack(self, buffers: Mapping[int, Buffer]) -> None:
        """Emit the transposition of the scaled queries."""
        kernel, source = self.kernel, buffers[self.kernel.query.index]
        factor: TirExpr = tirx.const(kernel.scale, "float32")
        for one in kernel.factors:
            factor = factor * load(buffers[one.index], one.base(self.digits))
        factor = bind(factor)
        base = bind(kernel.query.base(self.digits) + self.row * kernel.query.row)
        lanes, row, column = kernel.unit.lanes, kernel.query.row, kernel.query.column
        in_registers = column == 1 and kernel.depth % lanes == 0 and row > 0
        for start, width in self._starts:
            scale = splat(factor, width)
            if in_registers and width == lanes:
                with emit.serial(kernel.depth // lanes) as chunk:
                    places = [base + (start + lane) * row + chunk * lanes for lane in range(lanes)]
                    lines = [bind(load(source, place, lanes) * scale) for place in places]
                    for lane, line in enumerate(transpose(lines)):
                        depth = chunk * lanes + lane
                        store(self.scratch.queries, line, depth * kernel.height + start, lanes)
            else:
                with emit.serial(kernel.depth) as depth:
                    place = base + start * row + depth * column
                    line = load(source, place, width, row) * scale
                    store(self.scratch.queries, line, depth * kernel.height + start, width)

    def _scores(self, buffers: Mapping[int, Buffer]) -> list[Accumulator]:
        """Emit the scores; returns the largest of each row."""
        kernel = self.kernel
        largest = [Accumulator(lanes) for lanes in kernel.widths]
        for one in largest:
            one.set(splat(float("-inf"), one.lanes))
        base = bind(kernel.key.base(self.digits))
        masks = [
            (mask, bind(mask.base(self.digits) + self.row * mask.row)) for mask in kernel.masks
        ]
        height = even_height(kernel.keys, len(kernel.widths), kernel.unit)
        with emit.serial(-(-kernel.keys // height)) as tile:
            first = bind(T.min(tile * height, kernel.keys - height))
            sums = [[Accumulator(lanes) for lanes in kernel.widths] for _ in range(height)]
            for one in (each for line in sums for each in line):
                one.zero()
            self._products(buffers[kernel.key.index], base, first, sums)
            for y, line in enumerate(sums):
                key = first + y
                for (start, lanes), one, most in zip(self._starts, line, largest, strict=True):
                    score = one.value
                    for mask, at in masks:
                        place = at + start * mask.row + key * mask.column
                        score = score + load(buffers[mask.index], place, lanes, mask.row)
                    score = bind(score)
                    store(self.scratch.scores, score, key * kernel.height + start, lanes)
                    most.set(T.max(most.value, score))
        return largest

    def _products(
        self,
        keys: Buffer,
        base: TirExpr,
        first: TirExpr,
        sums: Sequence[Sequence[Accumulator]],
    ) -> None:
        """Add the products of the queries with some keys to `sums`."""
        kernel = self.kernel
        with emit.serial(kernel.depth) as depth:
            queries = [
                bind(load(self.scratch.queries, depth * kernel.height + start, lanes))
                for start, lanes in self._starts
            ]
            place = bind(base + depth * kernel.key.row + first * kernel.key.column)
            for y, line in enumerate(sums):
                key = bind(load(keys, place + y * kernel.key.column))
                for one, query in zip(line, queries, strict=True):
                    one.set(one.value + query * splat(key, one.lanes))

    def _exponentials(self, largest: Sequence[Accumulator]) -> None:
        """Emit the exponentials of the scores, and the inverse of their sums."""
        kernel = self.kernel
        sums = [Accumulator(lanes) for lanes in kernel.widths]
        for one in sums:
            one.zero()
        with emit.serial(kernel.keys) as key:
            for (start, lanes), most, total in zip(self._starts, largest, sums, strict=True):
                place = bind(key * kernel.height + start)
                score = load(self.scratch.scores, place, lanes)
                power = bind(vector_math.exp(score - most.value, lanes))
                store(self.scratch.scores, power, place, lanes)
                total.set(total.value + power)
        for (start, lanes), total in zip(self._starts, sums, strict=True):
            store(self.scratch.shares, splat(1.0, lanes) / total.value, start, lanes)

    def _results(self, values: Buffer, out: Buffer) -> None:
        """Emit the products of the exponentials with the values."""
        kernel = self.kernel
        lanes = kernel.unit.lanes
        first = 0
        while first < kernel.columns:
            rest = min(kernel.columns - first, _VALUE_VECTORS * lanes)
            whole, partial = divmod(rest, lanes)
            self._columns(first, (lanes,) * whole + ((partial,) if partial else ()), values, out)
            first += rest

    def _columns(self, first: int, widths: Sequence[int], values: Buffer, out: Buffer) -> None:
        """Emit some columns of the result."""
        kernel = self.kernel
        starts = [first + sum(widths[:index]) for index in range(len(widths))]
        base = bind(kernel.value.base(self.digits))
        step, column = kernel.value.row, kernel.value.column or 1
        target = AttentionTensor(index=-1, where=kernel.result)
        to = bind(target.base(self.digits) + self.row * kernel.result.strides[-2])
        height = even_height(kernel.height, len(widths), kernel.unit)
        with emit.serial(-(-kernel.height // height)) as tile:
            top = bind(T.min(tile * height, kernel.height - height))
            sums = [[Accumulator(lanes) for lanes in widths] for _ in range(height)]
            for one in (each for line in sums for each in line):
                one.zero()
            with emit.serial(kernel.keys) as key:
                place = bind(base + key * step)
                vectors = [
                    bind(load(values, place + start * column, lanes, column))
                    for start, lanes in zip(starts, widths, strict=True)
                ]
                for y, line in enumerate(sums):
                    share = bind(load(self.scratch.scores, key * kernel.height + top + y))
                    for one, vector in zip(line, vectors, strict=True):
                        one.set(one.value + vector * splat(share, one.lanes))
            for y, line in enumerate(sums):
                inverse = bind(load(self.scratch.shares, top + y))
                at = bind(to + (top + y) * kernel.result.strides[-2])
                for one, start in zip(line, starts, strict=True):
                    place = at + start * kernel.result.strides[-1]
                    value = one.value * splat(inverse, one.lanes)
                    store(out, value, place, one.lanes, kernel.result.strides[-1])
