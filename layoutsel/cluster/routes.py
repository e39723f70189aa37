"""Routes of a placement: segments that nodes run in one go, and the tensors sent between them.

A node runs its atoms in the order of the schedule. A segment ends where another node waits for one
of its tensors, and begins where a tensor of another node is awaited, so that the segments have the
times of the schedule.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from layoutsel.cluster.metrics import Mix, Predictor
from layoutsel.cluster.problem import Cluster, Placement
from layoutsel.cluster.segments import Route, Segment, Transfer
from layoutsel.cost.tensor import Tensor


def routes_of(predictor: Predictor, mix: Mix) -> tuple[Route, ...]:
    """Make the routes of a mix, the one of the largest share first."""
    shares = sorted(mix, key=lambda share: -share.weight)
    return tuple(
        Route(
            weight=share.weight,
            segments=tuple(segments(predictor, share.placement)),
            transfers=tuple(transfers(predictor.cluster, share.placement)),
        )
        for share in shares
    )


def segments(predictor: Predictor, placement: Placement) -> Iterator[Segment]:
    """Yield the segments of a placement, each after those that it reads."""
    order = [str(atom) for atom in predictor.schedule(placement).order]
    for node, run in _runs(predictor.cluster, placement, order):
        yield _segment(predictor.cluster, placement, node, run)


@dataclass
class _Open:
    """Segments in the making."""

    atoms: list[str] = field(default_factory=list)
    """Atoms of the segment so far."""
    arriving: list[Tensor] = field(default_factory=list)
    """Tensors of other nodes that arrive for it."""


def _runs(
    cluster: Cluster, placement: Placement, order: Sequence[str]
) -> Iterator[tuple[str, _Open]]:
    """Yield the segments with their nodes, in the order in which they end."""
    reads: dict[str, list[Tensor]] = {atom: [] for atom in order}
    makes: dict[str, list[Tensor]] = {atom: [] for atom in order}
    for tensor in cluster.graph.tensors:
        for consumer in dict.fromkeys(use.consumer for use in tensor.uses):
            if consumer is not None:
                reads[consumer].append(tensor)
        if tensor.producer is not None:
            makes[tensor.producer].append(tensor)
    open_: dict[str, _Open] = {}
    at_hand: dict[str, set[str]] = {node: set() for node in cluster.nodes}
    for atom in order:
        node = placement[atom]
        awaited = [
            tensor
            for tensor in reads[atom]
            if maker_of(cluster, placement, tensor) != node and tensor.name not in at_hand[node]
        ]
        if awaited and node in open_:
            yield node, open_.pop(node)
        at_hand[node] |= {tensor.name for tensor in awaited}
        now = open_.setdefault(node, _Open())
        now.atoms.append(atom)
        now.arriving += awaited
        if any(readers_of(cluster, placement, tensor) - {node} for tensor in makes[atom]):
            yield node, open_.pop(node)
    yield from open_.items()


def maker_of(cluster: Cluster, placement: Placement, tensor: Tensor) -> str:
    """Node that makes a tensor; the origin for inputs of the model."""
    return cluster.topology.origin if tensor.producer is None else placement[tensor.producer]


def readers_of(cluster: Cluster, placement: Placement, tensor: Tensor) -> set[str]:
    """Nodes that read a tensor; the origin takes results."""
    origin = cluster.topology.origin
    return {origin if u.consumer is None else placement[u.consumer] for u in tensor.uses}


def _segment(cluster: Cluster, placement: Placement, node: str, run: _Open) -> Segment:
    graph, held = cluster.graph, set(run.atoms)
    ordered = [atom for atom in graph.atoms if atom in held]
    inputs, outputs = [], []
    for tensor in graph.tensors:
        consumers = {use.consumer for use in tensor.uses}
        if tensor.producer in held:
            if consumers - held - {None}:
                outputs.append(graph.name(tensor))
            outputs += [f"output.{u.input_index}" for u in tensor.uses if u.consumer is None]
        elif consumers & held:
            inputs.append(graph.name(tensor))
    options = [cluster.option(atom, node) for atom in ordered]
    transforms_us = sum(
        cluster.repack_us(tensor, maker_of(cluster, placement, tensor), node)
        for tensor in run.arriving
    )
    is_first = next(iter(graph.atoms)) in held  # the price of the first atom has its call
    call_us = 0.0 if is_first else cluster.routes.call_us(node)
    return Segment(
        id=_identifier(ordered, node),
        node=node,
        atoms=tuple(ordered),
        subgraphs=tuple(id_ for atom in ordered for id_ in graph.atoms[atom]),
        inputs=tuple(inputs),
        outputs=tuple(outputs),
        us=sum(option.cost_us for option in options) + transforms_us + call_us,
        spread_us=math.hypot(*(option.spread_us for option in options)),
    )


def _identifier(atoms: Sequence[str], node: str) -> str:
    """Name of a segment; equal ones of several routes have equal names."""
    ends = "_".join(dict.fromkeys((atoms[0], atoms[-1])))
    return re.sub(r"[^A-Za-z0-9_]", "_", f"{node}_{ends}")


def transfers(cluster: Cluster, placement: Placement) -> Iterator[Transfer]:
    """Yield the tensors that are sent, each once to each node that reads it."""
    for tensor in cluster.graph.tensors:
        source = maker_of(cluster, placement, tensor)
        for node in sorted(readers_of(cluster, placement, tensor) - {source}):
            yield Transfer(
                tensor=_sent_name(cluster, placement, tensor, node),
                source=source,
                destination=node,
                bytes=tensor.bytes,
                us=cluster.routes.route(source, node).us(tensor.bytes),
            )


def _sent_name(cluster: Cluster, placement: Placement, tensor: Tensor, node: str) -> str:
    """Name of a tensor that is sent; a result that no atom of the node reads is an output."""
    here = [u for u in tensor.uses if u.consumer is not None and placement[u.consumer] == node]
    results = [use for use in tensor.uses if use.consumer is None]
    return cluster.graph.name(tensor) if here else f"output.{results[0].input_index}"
