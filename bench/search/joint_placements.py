"""Times of networks by the rules of placement of the methods."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from layoutsel.search.parts import parts_of
from layoutsel.search.placing import cluster_of, placed, placed_us
from layoutsel.search.space import Architecture
from search.joint_task import Task

Place = Callable[[Task, Architecture], float]
"""Time of a network with the placement of a method; infinite if it does not fit."""


def exact(task: Task, network: Architecture) -> float:
    return task.us(network)


def placements(task: Task, network: Architecture, options: Iterator[Sequence[str]]) -> float:
    """Least time of some placements that keep the limits of memory."""
    parts = parts_of(task.space, network)
    cluster = cluster_of(parts, task.table, task.routes)
    best = np.inf
    for nodes in options:
        held: dict[str, float] = {}
        for part, node in zip(parts.parts, nodes, strict=True):
            held[node] = held.get(node, 0.0) + part.signature.weight_bytes
        limits = {one.id: one.memory_bytes for one in task.question.topology.nodes}
        if all((limits[node] or np.inf) >= size for node, size in held.items()):
            chosen = dict(zip((part.name for part in parts.parts), nodes, strict=True))
            best = min(best, placed_us(cluster, placed(parts, chosen)))
    return best


def one_device(task: Task, network: Architecture) -> float:
    count = len(parts_of(task.space, network).parts)
    return placements(task, network, ([node.id] * count for node in task.question.topology.nodes))


def one_split(task: Task, network: Architecture) -> float:
    """All parts up to a cut on the first node, and the others on another one."""
    count, (first, *others) = (
        len(parts_of(task.space, network).parts),
        [one.id for one in task.question.topology.nodes],
    )
    pairs = ((cut, other) for cut in range(count + 1) for other in others)
    return placements(
        task, network, ([first] * cut + [other] * (count - cut) for cut, other in pairs)
    )


def equal_split(task: Task, network: Architecture) -> float:
    """Equally many parts on each node, in the order of the nodes."""
    count, nodes = (
        len(parts_of(task.space, network).parts),
        [one.id for one in task.question.topology.nodes],
    )
    return placements(task, network, iter([[nodes[i * len(nodes) // count] for i in range(count)]]))
