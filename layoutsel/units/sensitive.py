"""Sub-graphs whose rounding affects the outputs most; without a tolerated error they stay f32."""

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
    """Reason why rounding of a sub-graph matters more than elsewhere, and its effect."""

    reason: str
    """Reason for users."""
    felt: float
    """Maximum error of an output per rounding error here; infinite for a normalisation."""

    def decline(self, subgraph: Subgraph, decision: Decision, mode: PrecisionMode) -> Decline:
        """Return the decline of a decision that rounds such a sub-graph."""
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
    """Return the sensitive sub-graphs, each with its reason."""
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
    """Return the share of a head's rounding error that reaches the outputs.

    It is all of the error, unless all consumers of the head average pixels.
    """
    readers = [edge.consumer for edge in graph.edges if edge.producer == head]
    shares = [_remains(graph.by_id[reader]) if reader is not None else 1.0 for reader in readers]
    return max(shares, default=1.0)


def _remains(reader: Subgraph) -> float:
    """Return the share of an error with independent signs that remains after a sub-graph."""
    if not has_trait(reader.anchor, Trait.AVERAGES):
        return 1.0
    read, made = reader.inputs[0].shape, reader.outputs[0].shape
    return math.sqrt(math.prod(made) / math.prod(read))


def _heads(graph: Graph) -> set[SubgraphId]:
    """Return the products that no other product follows, and the sub-graphs after them."""
    before, behind = _reachable(graph, forward=True), _reachable(graph, forward=False)
    return {
        subgraph.id
        for subgraph in graph.subgraphs
        if subgraph.id not in behind and (_multiplies(subgraph) or subgraph.id in before)
    }


def _reachable(graph: Graph, *, forward: bool) -> set[SubgraphId]:
    """Return the sub-graphs that depend on a product, directly or not.

    Backward, return those on which a product depends.
    """
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
    """Return whether a sub-graph contains a product."""
    return any(has_trait(operator, Trait.MULTIPLIES) for operator in subgraph.operators)
