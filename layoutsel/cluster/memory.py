"""Memory of a placement: weights and live tensors of each node, while atoms run in turn.

A node holds the weights of its atoms. It holds a tensor from its production until the last of its
atoms has read it; a tensor that it only sends, while its producer runs. The origin holds the inputs
and results of a request from beginning to end. Requests in flight each have their own tensors.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from layoutsel.cluster.problem import AtomGraph, Cluster, Placement


@dataclass(frozen=True, kw_only=True)
class HeldTensor:
    """A tensor between atoms, by the positions of its producer and consumers."""

    bytes: float
    """Size, bytes."""
    producer: int
    """Position of the producer; -1 for an input of the model."""
    consumers: tuple[int, ...]
    """Positions of the consumers, ascending."""

    def holders(self, step: int) -> tuple[int, ...]:
        """Positions of the atoms whose nodes hold the tensor at a step."""
        if step < self.producer:
            return ()
        if step == self.producer:
            return (self.producer, *self.consumers)
        return tuple(position for position in self.consumers if position >= step)


def held_tensors(graph: AtomGraph) -> tuple[HeldTensor, ...]:
    """List the tensors between atoms."""
    position: dict[str | None, int] = {atom: number for number, atom in enumerate(graph.atoms)}
    position[None] = -1
    return tuple(
        HeldTensor(
            bytes=float(tensor.bytes),
            producer=position[tensor.producer],
            consumers=tuple(
                sorted({position[use.consumer] for use in tensor.uses if use.consumer is not None})
            ),
        )
        for tensor in graph.tensors
    )


def request_bytes(graph: AtomGraph) -> float:
    """Bytes of the inputs and results of a request, which the origin keeps."""
    return float(
        sum(
            tensor.bytes
            for tensor in graph.tensors
            if tensor.producer is None or any(use.consumer is None for use in tensor.uses)
        )
    )


def live_bytes(graph: AtomGraph, placement: Placement) -> dict[str, list[float]]:
    """Bytes of live tensors at each step, by node; nodes without atoms are absent."""
    nodes = [placement[atom] for atom in graph.atoms]
    changes = {node: [0.0] * (len(nodes) + 1) for node in nodes}
    for tensor in held_tensors(graph):
        first = max(tensor.producer, 0)
        last = {nodes[position]: position for position in tensor.consumers}  # ascending
        if tensor.producer >= 0:
            last.setdefault(nodes[first], first)
        for node, position in last.items():
            changes[node][first] += tensor.bytes
            changes[node][position + 1] -= tensor.bytes
    live = {node: list(itertools.accumulate(some[:-1])) for node, some in changes.items()}
    for number, atom in enumerate(graph.atoms):
        live[nodes[number]][number] += graph.inner_bytes.get(atom, 0.0)
    return live


def peaks(
    cluster: Cluster, placements: Iterable[Placement], *, in_flight: float = 1.0
) -> Mapping[str, float]:
    """Peak memory of each node, bytes.

    Parameters
    ----------
    cluster
        Nodes and network.
    placements
        Placements of the routes, which share the weights of their nodes.
    in_flight
        Number of requests in progress.
    """
    weights: dict[str, dict[str, float]] = {node: {} for node in cluster.nodes}
    live = dict.fromkeys(cluster.nodes, 0.0)
    for placement in placements:
        for atom, node in placement.items():
            weights[node][atom] = cluster.graph.weight_bytes.get(atom, 0.0)
        for node, steps in live_bytes(cluster.graph, placement).items():
            live[node] = max(live[node], *steps)
    live[cluster.topology.origin] += request_bytes(cluster.graph)
    return {node: sum(held.values()) + in_flight * live[node] for node, held in weights.items()}


def excess(cluster: Cluster, found: Mapping[str, float]) -> Iterator[tuple[str, float]]:
    """Yield the nodes whose memory is too small for the peaks `found`, with the missing bytes."""
    for node, size in found.items():
        capacity = cluster.capacity(node)
        if capacity is not None and size > capacity:
            yield node, size - capacity
