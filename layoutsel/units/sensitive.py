"""The sub-graphs whose rounding a network feels most: these stay f32, unless a tolerated error says otherwise."""

from __future__ import annotations

import math
from dataclasses import dataclass

from layoutsel.core.precision import PrecisionMode
from layoutsel.cost.graph import Graph, Subgraph
from tvm_passes.decision import Decision, SubgraphId
from tvm_passes.errors import Decline
from tvm_passes.operators import Trait, has_trait


@dataclass(frozen=True, kw_only=True)
class Sensitivity:
    """Why a sub-graph's own rounding counts for more than that of others, and how much."""

    reason: str
    """For people."""
    felt: float
    """How many times an output may feel it."""

    def decline(self, subgraph: Subgraph, decision: Decision, mode: PrecisionMode) -> Decline:
        """Why such a sub-graph is not computed as `decision` says."""
        choices = (*mode.precisions, *mode.for_sensitive)
        allowed = " or ".join(name for name in choices if mode.offers(name, self.felt))
        return Decline(
            subgraph=subgraph.id,
            operator=subgraph.anchor,
            decision=str(decision),
            got=f"a sensitive sub-graph ({self.reason})",
            expected=f"precision {allowed}: only --precision auto weighs others",
        )


def sensitive_subgraphs(graph: Graph) -> dict[SubgraphId, Sensitivity]:
    """The sensitive sub-graphs with what makes each so."""
    normalising = {
        subgraph.id: Sensitivity(reason=operator, felt=math.inf)
        for subgraph in graph.subgraphs
        for operator in subgraph.operators
        if has_trait(operator, Trait.NORMALISES)
    }
    heads = {
        id_: Sensitivity(reason="the last product before an output", felt=_felt(graph, id_))
        for id_ in _heads(graph)
    }
    return {**heads, **normalising}


def _felt(graph: Graph, head: SubgraphId) -> float:
    """What the outputs feel of a head's rounding: all of it, unless whatever reads the head averages pixels."""
    readers = [edge.consumer for edge in graph.edges if edge.producer == head]
    shares = [_remains(graph.by_id[reader]) if reader is not None else 1.0 for reader in readers]
    return max(shares, default=1.0)


def _remains(reader: Subgraph) -> float:
    """Share of an error of independent signs that is left after a sub-graph."""
    if not has_trait(reader.anchor, Trait.AVERAGES):
        return 1.0
    read, made = reader.inputs[0].shape, reader.outputs[0].shape
    return math.sqrt(math.prod(made) / math.prod(read))


def _heads(graph: Graph) -> set[SubgraphId]:
    """The products behind which no other comes, and what comes behind them."""
    before, behind = _reachable(graph, forward=True), _reachable(graph, forward=False)
    return {
        subgraph.id
        for subgraph in graph.subgraphs
        if subgraph.id not in behind and (_multiplies(subgraph) or subgraph.id in before)
    }


def _reachable(graph: Graph, *, forward: bool) -> set[SubgraphId]:
    """Sub-graphs that read, through any others, what a product makes; backward, those that it reads."""
    reached: set[SubgraphId] = set()
    edges = [(edge.producer, edge.consumer) for edge in graph.edges]
    if not forward:
        edges = [(consumer, producer) for producer, consumer in edges]
    following: dict[SubgraphId, list[SubgraphId]] = {}
    for source, destination in edges:
        if source is not None and destination is not None:
            following.setdefault(source, []).append(destination)
    for subgraph in graph.subgraphs if forward else reversed(graph.subgraphs):
        if subgraph.id in reached or _multiplies(subgraph):
            reached.update(following.get(subgraph.id, ()))
    return reached


def _multiplies(subgraph: Subgraph) -> bool:
    return any(has_trait(operator, Trait.MULTIPLIES) for operator in subgraph.operators)
