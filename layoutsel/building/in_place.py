"""Concatenations that are free: their parts are written in place (:mod:`tvm_passes.cpu.place`)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

from layoutsel.building.functions import Functions
from layoutsel.cost.graph import Edge, Graph, Subgraph
from tvm_passes.decision import Decision, SubgraphId
from tvm_passes.units.entry import HOST_UNIT

Port = tuple[SubgraphId | None, int]
"""Producer and output index of a tensor."""


@dataclass(frozen=True)
class InPlaceConcats:
    """Concatenations whose parts can be written directly into the joint result.

    The structure of the graph allows it. Decisions may still prevent it; see :meth:`copied`.
    """

    graph: Graph
    """Graph of the model."""
    functions: Functions
    """Functions of the sub-graphs."""
    parts: Mapping[Port, SubgraphId]
    """Concatenation whose result each tensor can be written into; other tensors are absent."""

    @classmethod
    def read(cls, graph: Graph, functions: Functions) -> InPlaceConcats:
        """Find the tensors that can be written in place."""
        return cls(graph, functions, in_place_parts(graph))

    def copied(self, subgraph: Subgraph, decision: Decision) -> float:
        """Compute the share of input bytes that a sub-graph has to copy under `decision`.

        It is 1 unless the sub-graph is a concatenation.
        """
        if decision.unit != HOST_UNIT or not _is_concat(subgraph):
            return 1.0
        inputs, outputs = self.functions.ports(subgraph.id, decision)
        if any(layout != outputs[0] for layout in inputs):
            return 1.0
        edges = [edge for edge in self.graph.edges if edge.consumer == subgraph.id]
        placed = sum(
            edge.tensor.nbytes
            for edge in edges
            if self.parts.get((edge.producer, edge.output_index)) == subgraph.id
        )
        return 1.0 - placed / sum(edge.tensor.nbytes for edge in edges)


def in_place_parts(graph: Graph) -> dict[Port, SubgraphId]:
    """Find the tensors that can be written into the result of a concatenation, with the latter.

    Their consumers are one concatenation, and otherwise only element-wise sub-graphs.
    """
    readers: dict[Port, list[Edge]] = defaultdict(list)
    for edge in graph.edges:
        readers[edge.producer, edge.output_index].append(edge)
    parts = {}
    for port, edges in readers.items():
        joining = [e.consumer for e in edges if e.consumer is not None and _joins(graph, e)]
        others = [edge for edge in edges if not _joins(graph, edge)]
        if port[0] is not None and len(joining) == 1 and all(_follows(graph, e) for e in others):
            parts[port] = joining[0]
    return parts


def _is_concat(subgraph: Subgraph) -> bool:
    channels = subgraph.attributes.get("axis") in ((1,), (-3,))
    return subgraph.operators == ("concat",) and channels and len(subgraph.outputs[0].shape) == 4


def _joins(graph: Graph, edge: Edge) -> bool:
    return edge.consumer is not None and _is_concat(graph.by_id[edge.consumer])


def _follows(graph: Graph, edge: Edge) -> bool:
    return edge.consumer is not None and graph.by_id[edge.consumer].anchor == "elementwise"
