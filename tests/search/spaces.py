"""Search spaces, price tables and topologies for tests."""

from __future__ import annotations

import itertools
import random
from dataclasses import replace

from layoutsel.cluster.engine_times import EngineTimes
from layoutsel.cluster.links import MessageRoutes
from layoutsel.cluster.statistics import LinkState, NodeState, Statistics
from layoutsel.cluster.topology import Link, Node, Topology
from layoutsel.search.operations import OPERATIONS
from layoutsel.search.parts import signatures_of
from layoutsel.search.placing import classes_of
from layoutsel.search.prices import ClassPrices, PriceTable
from layoutsel.search.space import Cell, Space
from tests.cluster.clusters import star

ALL = tuple(OPERATIONS)


def cells_space(nodes: int = 2, operations: tuple[str, ...] = ALL) -> Space:
    """Two cells for signals, the second one with a stride."""
    return Space(
        data="mnist1d",
        input_shape=(1, 1, 40),
        classes=10,
        stem_channels=8,
        cells=(
            Cell(name="a", channels=(8, 12), operations=operations, nodes=nodes),
            Cell(name="b", channels=(16,), operations=operations, stride=(1, 2), nodes=nodes),
        ),
    )


def chain_space(layers: int, operations: tuple[str, ...], widths: tuple[int, ...] = (8,)) -> Space:
    """Layers for images, the second one with a stride."""
    return Space(
        data="mnist5k",
        input_shape=(1, 12, 12),
        classes=10,
        stem_channels=widths[0],
        cells=tuple(
            Cell(
                name=f"l{number}",
                channels=widths,
                operations=operations,
                stride=(2, 2) if number == 1 else (1, 1),
            )
            for number in range(layers)
        ),
    )


def random_prices(
    space: Space, topology: Topology, seed: int, scale_us: float = 100.0
) -> PriceTable:
    """Prices without any structure, for each class of the topology."""
    rng = random.Random(seed)
    return PriceTable(
        classes={
            name: ClassPrices(
                us={str(one): rng.uniform(0.1, 1) * scale_us for one in signatures_of(space)},
                spread_us={str(one): 1.0 for one in signatures_of(space)},
            )
            for name in sorted(set(classes_of(topology).values()))
        }
    )


ENGINE = EngineTimes(request_us=70.0, call_us=11.0, segment_us=13.0, message_us=17.0, wake_us=5.0)
"""An engine that takes time for everything."""


def routes_over(count: int, **options: object) -> MessageRoutes:
    """Nodes of classes of their own around a switch; the last one is busy."""
    busy = {f"n{count - 1}": NodeState(others_busy=0.3)}
    return MessageRoutes(different_classes(star(count, **options)), Statistics(nodes=busy), ENGINE)


def routes_over_links() -> MessageRoutes:
    """Two nodes of classes of their own with three ways between them, and a fourth to nowhere.

    The one over ``sw`` takes little time for small messages, the direct one for large ones.
    """
    topology = star(2, gbps=0.1, rtt_us=10.0, duplex="half")
    direct = Link(source="n0", target="n1", gbps=2.0, rtt_us=90.0, cpu_us=1.0)
    other = (
        Link(source="n0", target="cell", gbps=0.5, rtt_us=30.0),
        Link(source="cell", target="mast", gbps=0.3, rtt_us=15.0, cpu_ns_per_byte=2.0),
        Link(source="mast", target="n1", gbps=9.0, rtt_us=1.0),
        Link(source="n0", target="nowhere", gbps=9.0, rtt_us=1.0),
    )
    topology = replace(
        topology,
        nodes=(
            *topology.nodes,
            *(Node(id=name, kind="switch") for name in ("cell", "mast", "nowhere")),
        ),
        links=(*topology.links, direct, *other),
    )
    state = LinkState(source="n0", target="cell", gbps=0.4)
    busy = {"n1": NodeState(others_busy=0.3)}
    statistics = Statistics(nodes=busy, links=(state,))
    return MessageRoutes(different_classes(topology), statistics, ENGINE)


def different_classes(topology: Topology) -> Topology:
    """Copy of a topology in which every node is of a class of its own."""
    threads = itertools.count(1)
    return replace(
        topology,
        nodes=tuple(
            replace(node, threads=next(threads)) if node.kind == "node" else node
            for node in topology.nodes
        ),
    )
