"""Descent to placements of little memory, where integer programmes take long."""

from __future__ import annotations

import time
from collections.abc import Iterator

from layoutsel.cluster.memory import excess, peaks
from layoutsel.cluster.problem import Cluster, Placement

_Rank = tuple[float, float]
"""Bytes that are missing, and the largest peak."""


def dealt(cluster: Cluster) -> dict[str, str]:
    """Deal the atoms out in order, so that each node gets about as many bytes of weights."""
    weights = cluster.graph.weight_bytes
    total = max(sum(weights.get(atom, 0.0) for atom in cluster.graph.atoms), 1e-9)
    found, before = {}, 0.0
    for atom in cluster.graph.atoms:
        own = weights.get(atom, 0.0)
        number = int((before + own / 2) / total * len(cluster.nodes))
        found[atom] = cluster.nodes[min(number, len(cluster.nodes) - 1)]
        before += own
    return found


def descended(cluster: Cluster, start: Placement, *, deadline: float) -> Placement:
    """Move or exchange atoms of the fullest node while that helps.

    Parameters
    ----------
    cluster
        Nodes and network.
    start
        Placement to begin with.
    deadline
        Deadline by :func:`time.monotonic`, seconds.
    """
    best, rank = dict(start), _rank(cluster, start)
    while time.monotonic() < deadline:
        found = min(
            ((_rank(cluster, other), number, other) for number, other in _moves(cluster, best)),
            default=None,
            key=lambda one: one[:2],
        )
        if found is None or found[0] >= rank:
            break
        rank, _, best = found
    return best


def _rank(cluster: Cluster, placement: Placement) -> _Rank:
    held = peaks(cluster, [placement])
    return sum(size for _, size in excess(cluster, held)), max(held.values())


def _moves(cluster: Cluster, placement: Placement) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield the placements with one atom of the fullest node moved, or exchanged with another."""
    held = peaks(cluster, [placement])
    lacks = dict(excess(cluster, held))
    fullest = max(held, key=lambda node: (lacks.get(node, 0.0), held[node]))
    number = 0
    for atom in (one for one, node in placement.items() if node == fullest):
        for node in cluster.nodes:
            if node != fullest:
                number += 1
                yield number, {**placement, atom: node}
        for other, node in placement.items():
            if node != fullest:
                number += 1
                yield number, {**placement, atom: node, other: fullest}
