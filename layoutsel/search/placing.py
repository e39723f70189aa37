"""Networks of a search space as planning problems over the nodes of a topology.

A network with its placement costs what the planner of distributions says: there is no other formula
of time.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from layoutsel.cluster.classes import machine_classes
from layoutsel.cluster.links import MessageRoutes
from layoutsel.cluster.problem import AtomGraph, ClassCosts, Cluster
from layoutsel.cluster.topology import Topology
from layoutsel.cost.tensor import Tensor, TensorUse
from layoutsel.search.parts import INPUT, PartGraph, PartSignature, tensor_bytes
from layoutsel.search.prices import PriceTable
from tvm_passes.decision import SubgraphId


@dataclass(frozen=True, kw_only=True)
class SearchWork:
    """Work of a request."""

    name: str
    """Name for users."""
    has_gradients: bool
    """True if gradients of all weights are computed, and sent over the links."""


INFERENCE = SearchWork(name="inference", has_gradients=False)
"""Forward pass alone."""
TRAINING_STEP = SearchWork(name="training-step", has_gradients=True)
"""Forward and backward pass of one sample. The loss is computed by the origin.

Gradients are computed by the node of the part. They take as much memory as what they are of.
"""
WORKS: Mapping[str, SearchWork] = {work.name: work for work in (INFERENCE, TRAINING_STEP)}
"""Kinds of work by name."""


def gradient_factor(signature: PartSignature, *, is_first: bool) -> float:
    """Time of a part's gradients, relative to that of its forward pass.

    The gradient of the inputs takes as many multiplications as the forward pass, and so does that
    of the weights (Kaplan et al., arXiv 2001.08361, section 2.1). The first part needs no gradient
    of its input, and parts without weights have none of weights.
    """
    return float(not is_first) + float(signature.weight_bytes > 0)


def classes_of(topology: Topology) -> dict[str, str]:
    """Machine class of each node that computes."""
    classes = machine_classes(topology, Path())
    return {node: one.name for one in classes for node in one.nodes}


def cluster_of(
    parts: PartGraph, table: PriceTable, routes: MessageRoutes, work: SearchWork = INFERENCE
) -> Cluster:
    """Make the planning problem of a network over a topology: one atom for each part.

    Parameters
    ----------
    parts
        Network.
    table
        Prices on the machine classes of the topology.
    routes
        Topology in its present state.
    work
        SearchWork of a request.

    Raises
    ------
    UnpricedPart
        If a part has no price on some class.
    """
    classes = classes_of(routes.topology)
    return Cluster(
        graph=_atoms(parts, work),
        classes=classes,
        costs={name: _costs(parts, table, name, work) for name in sorted(set(classes.values()))},
        routes=routes,
    )


def placed(
    parts: PartGraph, nodes: Mapping[str, str], work: SearchWork = INFERENCE
) -> dict[str, str]:
    """Placement of all atoms of :func:`cluster_of`, from the node of each part."""
    found = {part.name: nodes[part.name] for part in parts.parts}
    if work.has_gradients:
        found |= {gradient_of(name): node for name, node in found.items()}
    return found


def placed_us(cluster: Cluster, placement: Mapping[str, str]) -> float:
    """Time of a network with a node for each of its atoms, microseconds: the sum of all prices.

    The engine's own time of a request is one of them.
    """
    placed_at = cluster.decisions(placement)
    return cluster.problem.cost(placed_at).total_us + cluster.routes.engine.request_us


def gradient_of(part: str) -> str:
    """Name of the atom that computes the gradients of a part."""
    return f"{part}.gradient"


def _costs(parts: PartGraph, table: PriceTable, name: str, work: SearchWork) -> ClassCosts:
    """Times of a network's atoms on a class of machines."""
    us, spread_us = {}, {}
    for part in parts.parts:
        us[part.name] = table.us(part.signature, name)
        spread_us[part.name] = table.spread_us(part.signature, name)
        if work.has_gradients:
            factor = gradient_factor(part.signature, is_first=INPUT in part.inputs)
            us[gradient_of(part.name)] = factor * us[part.name]
            spread_us[gradient_of(part.name)] = factor * spread_us[part.name]
    return ClassCosts(us=us, spread_us=spread_us, shared_spread=table.shared_spread(name))


def _atoms(parts: PartGraph, work: SearchWork) -> AtomGraph:
    """Convert parts to atoms, and their tensors.

    Gradients follow in reverse order. An atom of gradients reads the inputs of its part, and the
    gradient of each consumer of its part's result; that of the network's result is an input.
    """
    names = [part.name for part in parts.parts]
    last = names[-1]
    readers: dict[str, list[str | None]] = {INPUT: [], **{name: [] for name in names}}
    for part in parts.parts:
        for tensor in part.inputs:
            readers[tensor].append(part.name)
    readers[last].append(None)
    shapes = {tensor: parts.shape(tensor) for tensor in readers}
    producers: dict[str, str | None] = {INPUT: None, **{name: name for name in names}}
    if work.has_gradients:
        loss = gradient_of(INPUT)
        producers[loss], readers[loss], shapes[loss] = None, [gradient_of(last)], shapes[last]
        for part in reversed(parts.parts):
            own = gradient_of(part.name)
            for tensor in part.inputs:
                readers[tensor].append(own)
            to: list[str | None] = []
            to += [gradient_of(tensor) for tensor in part.inputs if tensor != INPUT]
            if to:
                producers[own], readers[own], shapes[own] = own, to, parts.shape(part.inputs[0])
        names += [gradient_of(name) for name in reversed(names)]
    count: dict[str | None, int] = {}
    tensors = []
    for tensor, held in readers.items():
        uses = []
        for reader in held:
            uses.append(_use(reader, count.get(reader, 0)))
            count[reader] = count.get(reader, 0) + 1
        producer = producers[tensor]
        tensors.append(
            Tensor(
                producer=None if producer is None else SubgraphId(producer),
                output_index=int(tensor == gradient_of(INPUT)),
                uses=tuple(uses),
                shape=(1, *shapes[tensor]),
                bytes=tensor_bytes(shapes[tensor]),
            )
        )
    weights = {part.name: float(part.signature.weight_bytes) for part in parts.parts}
    if work.has_gradients:
        weights |= {gradient_of(name): size for name, size in weights.items()}
    return AtomGraph(
        atoms={name: (SubgraphId(name),) for name in names},
        tensors=tuple(tensors),
        weight_bytes=weights,
    )


def _use(reader: str | None, index: int) -> TensorUse:
    return TensorUse(consumer=None if reader is None else SubgraphId(reader), input_index=index)
