"""Local response normalisation: x / (k + alpha · mean of x² over neighbouring channels)^beta."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tvm import tirx
from tvm.tirx.script import builder as T

from tvm_passes.cpu import emit, vector_math
from tvm_passes.cpu.emit import Accumulator, Buffer, TirExpr, bind, splat
from tvm_passes.cpu.host import VectorUnit
from tvm_passes.cpu.nest import At, Nest, nest_for, run_nests
from tvm_passes.cpu.plan import KernelPlan
from tvm_passes.cpu.subgraph import KernelSubgraph, Literal, OperatorCall, Param
from tvm_passes.cpu.view import View, four_dimensional


@dataclass(frozen=True, kw_only=True)
class Normalisation:
    """Parameters of the normalisation."""

    source: Param
    """Tensor that is normalised."""
    size: int
    """Number of channels in the window."""
    before: int
    """Number of them before the normalised channel."""
    alpha: float
    """Factor of the mean."""
    bias: float
    """Added constant k."""
    beta: float
    """Exponent."""


_USUAL_BETA = 0.75
"""Exponent with a faster evaluation."""

_NODES = (
    "multiply",
    "expand_dims",
    "nn.avg_pool3d",
    "squeeze",
    "multiply",
    "add",
    "power",
    "divide",
)
"""Operators by which the importer spells the normalisation out."""


def _literals(nodes: Sequence[OperatorCall]) -> list[float]:
    """Return the scalar constants among the operands of `nodes`."""
    return [
        float(arg.array.reshape(-1)[0])
        for node in nodes
        for arg in node.args
        if isinstance(arg, Literal)
    ]


def read_normalisation(subgraph: KernelSubgraph) -> Normalisation | None:
    """Return the normalisation that a sub-graph spells out, or None."""
    nodes = subgraph.nodes
    if tuple(node.operator for node in nodes) != _NODES or not isinstance(nodes[0].args[0], Param):
        return None
    pool = nodes[2].attrs
    size = [int(extent) for extent in pool.pool_size]
    constants = _literals(nodes[4:7])
    if size[1:] != [1, 1] or not pool.count_include_pad or len(constants) != 3:
        return None
    alpha, bias, beta = constants
    if beta * 4 != int(beta * 4) or not 0 < beta <= 8:
        return None
    return Normalisation(
        source=nodes[0].args[0],
        size=size[0],
        before=int(pool.padding[0]),
        alpha=alpha,
        bias=bias,
        beta=beta,
    )


def plan_lrn(subgraph: KernelSubgraph, unit: VectorUnit) -> KernelPlan | str:
    """Plan a local response normalisation."""
    found = read_normalisation(subgraph)
    if found is None:
        return subgraph.anchor
    shape = four_dimensional(found.source.shape)
    source = found.source.view
    result = subgraph.result_view
    nest = nest_for(shape, [result, source], unit)
    if nest.axis == "c" and (shape[1] % nest.lanes or found.size > nest.lanes):
        return subgraph.anchor

    def emit_kernel(buffers: Mapping[int, Buffer], out: Buffer) -> None:
        reader = _Reader(found, source, shape[1], buffers[found.source.index], nest)

        def body(at: At, lanes: int, axis: str) -> None:
            value = bind(reader.load(at, lanes))
            total = reader.sum_of_squares(at, lanes, value)
            scale = total * splat(found.alpha / found.size, lanes) + splat(found.bias, lanes)
            scaled = value * _to_minus_beta(found, scale, lanes)
            result.store(out, scaled, result.offset(*at), lanes, axis)

        run_nests([nest], [body])

    return KernelPlan(subgraph=subgraph, emit=emit_kernel)


def _to_minus_beta(found: Normalisation, scale: TirExpr, lanes: int) -> TirExpr:
    """Compute the scale to the power of minus beta."""
    if found.beta == _USUAL_BETA and min(found.bias, found.alpha) > 0:
        return vector_math.inverse_three_quarters(scale, lanes)
    return vector_math.power(scale, -found.beta, lanes)


@dataclass(frozen=True)
class _Reader:
    """Reader of the input that sums its squares over the window."""

    found: Normalisation
    """Parameters of the normalisation."""
    source: View
    """Memory layout of the source."""
    channels: int
    """Number of channels."""
    buffer: Buffer
    """Buffer of the source."""
    nest: Nest
    """Loops around the reads."""

    def load(self, at: At, lanes: int) -> TirExpr:
        return self.source.load(self.buffer, self.source.offset(*at), lanes, self.nest.axis)

    def sum_of_squares(self, at: At, lanes: int, value: TirExpr) -> TirExpr:
        """Sum the squares over the window around each lane."""
        if self.nest.axis == "w":
            return self._across_planes(at, lanes)
        return self._across_lanes(at, lanes, value)

    def _across_planes(self, at: At, lanes: int) -> TirExpr:
        """Sum the squares for lanes of one channel."""
        n, c, h, w = at
        total = Accumulator(lanes)
        total.zero()
        first = bind(T.max(c - self.found.before, 0))
        last = T.min(c - self.found.before + self.found.size, self.channels)
        with emit.serial(last - first) as offset:
            value = bind(self.load((n, first + offset, h, w), lanes))
            total.set(total.value + value * value)
        return total.value

    def _across_lanes(self, at: At, lanes: int, value: TirExpr) -> TirExpr:
        """Sum the squares for lanes of different channels."""
        n, c, h, w = at
        square = bind(value * value)
        before = self._neighbour((n, c - lanes, h, w), c >= lanes, lanes)
        after = self._neighbour((n, c + lanes, h, w), c + lanes < self.channels, lanes)
        first = -self.found.before
        total = None
        for shift in range(first, first + self.found.size):
            moved = _shifted(before, square, after, shift, lanes)
            total = moved if total is None else total + moved
        return total

    def _neighbour(self, at: At, exists: TirExpr, lanes: int) -> TirExpr:
        """Load the squares of the neighbouring vector of channels; zeros beyond the ends."""
        value = Accumulator(lanes)
        value.zero()
        with T.If(exists), T.Then():
            loaded = bind(self.load(at, lanes))
            value.set(loaded * loaded)
        return bind(value.value)


def _shifted(before: TirExpr, middle: TirExpr, after: TirExpr, shift: int, lanes: int) -> TirExpr:
    """Return the lanes that are ``shift`` further on in three neighbouring vectors."""
    if shift == 0:
        return middle
    pair: Sequence[TirExpr] = [before, middle] if shift < 0 else [middle, after]
    start = lanes + shift if shift < 0 else shift
    indices = [tirx.const(lane, "int32") for lane in range(start, start + lanes)]
    return tirx.Shuffle(list(pair), indices)
