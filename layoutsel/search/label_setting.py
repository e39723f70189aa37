"""Exact fronts: all non-dominated networks with their placements, by label setting.

Memory counts for those nodes alone whose limit some network of a front without it exceeds (Righini
and Salani, "New dynamic programming algorithms for the resource constrained elementary shortest
path problem", 2008). If labels are many nevertheless, bounds leave out most of them
(:mod:`layoutsel.search.guided_search`).
"""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np

from layoutsel.search.front import Front, FrontPoint, NoNetwork, Scores
from layoutsel.search.guided_search import GuidedSearch
from layoutsel.search.labels import NodeMemory
from layoutsel.search.path_search import PathSearch
from layoutsel.search.product_graph import ProductGraph

MOST_LABELS = 50_000
"""Maximum number of labels of a vertex that are kept."""
TIME_LIMIT_S = 30.0
"""Default time limit of a front, seconds."""


def front_of(
    graph: ProductGraph,
    scores: Scores,
    *,
    most_us: float = np.inf,
    most_labels: int = MOST_LABELS,
    time_limit_s: float = TIME_LIMIT_S,
) -> Front:
    """Find all non-dominated networks with placements.

    Parameters
    ----------
    graph
        Space and topology.
    scores
        Score to maximise, for the cells of the space.
    most_us
        Limit of time, microseconds.
    most_labels
        Maximum number of labels of a vertex. If there are more, some are dropped and the front is
        not proven.
    time_limit_s
        Time after which labels that differ in memory are no longer all kept, seconds.

    Raises
    ------
    NoNetwork
        If no network with any placement was found that keeps the limits; names the tightest one.
    """
    found = front_within(
        graph, scores, most_us=most_us, most_labels=most_labels, time_limit_s=time_limit_s
    )
    if found is None:
        raise NoNetwork(_tightest(graph, most_us))
    return found


def front_within(
    graph: ProductGraph,
    scores: Scores,
    *,
    most_us: float = np.inf,
    most_labels: int = MOST_LABELS,
    time_limit_s: float = TIME_LIMIT_S,
) -> Front | None:
    """Find the front as :func:`front_of`; None if no network keeps the limits, without a reason."""
    deadline = time.monotonic() + time_limit_s
    limited: set[int] = set()
    known: list[FrontPoint] = []
    lost: list[FrontPoint] = []
    is_whole = False
    while True:
        search = PathSearch(
            graph=graph,
            scores=scores,
            most_us=most_us,
            most_labels=most_labels,
            memory=NodeMemory(graph, np.array(sorted(limited), dtype=int)),
            deadline=deadline,
        )
        found = search.run()
        if search.is_too_large:
            guided = GuidedSearch(graph, scores, most_us, most_labels, deadline, tuple(known))
            longest_us = lost[-1].us + _most_transfer_us(graph)
            return guided.run(longest_us, lost, is_whole=is_whole)
        over = [search.memory.exhausted(path) for path in search.paths]
        if found is None or not any(over):
            return found
        known = [point for point, nodes in zip(found.points, over, strict=True) if not nodes]
        lost = [point for point, nodes in zip(found.points, over, strict=True) if nodes]
        is_whole = found.is_proven
        limited.update(*over)


def _most_transfer_us(graph: ProductGraph) -> float:
    """Most time of one tensor to each of the nodes in turn."""
    found = 0.0
    for layer in graph.layers:
        us = layer.transfer_us
        found = max(found, float(us.max(where=np.isfinite(us), initial=0.0)))
    return len(graph.nodes) * found


def _tightest(graph: ProductGraph, most_us: float) -> str:
    """Describe the limit without which some network would be feasible."""
    empty = Scores(single=())

    def fastest(capacity: np.ndarray) -> Front | None:
        return front_within(replace(graph, capacity=capacity), empty)

    within = fastest(graph.capacity)
    if within is not None:
        return (
            f"no network takes at most {most_us:.4g} us: the fastest of the space takes "
            f"{within.points[0].us:.4g} us on this topology"
        )
    for number in np.flatnonzero(np.isfinite(graph.capacity)):
        capacity = graph.capacity.copy()
        capacity[number] = np.inf
        if fastest(capacity) is not None:
            return (
                f"no network fits the memory of {graph.nodes[number]!r}: got "
                f"{max(graph.capacity[number], 0) / 1e6:.4g} MB; expected more"
            )
    return "no network fits the memory of the nodes: expected more on each of them"
