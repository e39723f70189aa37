"""Fastest placement of one network of a search space."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from layoutsel.cluster.links import MessageRoutes
from layoutsel.planning.objectives import decide
from layoutsel.search.front import FrontPoint, Scores
from layoutsel.search.label_setting import front_within
from layoutsel.search.parts import parts_of
from layoutsel.search.placing import INFERENCE, SearchWork, cluster_of, placed_us
from layoutsel.search.prices import PriceTable
from layoutsel.search.product_graph import product_graph
from layoutsel.search.space import Architecture, Space


def only(space: Space, network: Architecture) -> Space:
    """Space of one network of another space of layers."""
    cells = tuple(
        replace(cell, channels=(channels,), operations=operations)
        for cell, channels, operations in zip(
            space.cells, network.channels, network.operations, strict=True
        )
    )
    return replace(space, cells=cells)


def fastest(
    space: Space,
    network: Architecture,
    table: PriceTable,
    routes: MessageRoutes,
    work: SearchWork = INFERENCE,
    most_us: float = np.inf,
) -> FrontPoint | None:
    """Place a network so that a request takes the least time; None if nothing keeps the limits.

    Limits of memory count for layers in a row; cells with inner nodes are placed without them.

    Parameters
    ----------
    space
        Search space of the network.
    network
        Channels and operations.
    table
        Prices on the machine classes of the topology.
    routes
        Topology in its present state.
    work
        Work of a request.
    most_us
        Limit of time, microseconds.
    """
    if all(cell.nodes == 1 for cell in space.cells):
        graph = product_graph(only(space, network), table, routes, work)
        front = front_within(graph, Scores(single=()), most_us=most_us)
        return None if front is None else front.points[0]
    parts = parts_of(space, network)
    cluster = cluster_of(parts, table, routes)
    decided = cluster.placement(decide(cluster.problem).solution.decisions)
    staying = {part.name: routes.topology.origin for part in parts.parts}
    best = min((decided, staying), key=lambda nodes: placed_us(cluster, nodes))
    return FrontPoint(us=placed_us(cluster, best), score=0.0, architecture=network, nodes=best)
