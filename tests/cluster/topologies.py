"""Small topologies and distributions for the tests of the cluster."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from layoutsel.cluster.distribution import (
    Distribution,
    Distributions,
    Route,
    Segment,
    Target,
    Transfer,
)
from layoutsel.cluster.statistics import Statistics
from layoutsel.cluster.topology import SWITCH, Header, Link, Node, Topology


def link(source: str, target: str, **changes: Any) -> Link:
    """A link of one byte per microsecond without delay."""
    return Link(**{"source": source, "target": target, "gbps": 8e-3, "rtt_us": 0.0, **changes})


def topology(links: Iterable[Link], *, origin: str = "a", switches: str = "") -> Topology:
    """A topology of the vertices that the links name; single letters in `switches` relay."""
    links = tuple(links)
    names = dict.fromkeys([origin, *(end for one in links for end in (one.source, one.target))])
    nodes = tuple(Node(id=name, **({"kind": SWITCH} if name in switches else {})) for name in names)
    header = Header(schema_version=1, origin=origin)
    return Topology(directed=False, multigraph=False, graph=header, nodes=nodes, links=links)


def star(count: int, **changes: Any) -> Topology:
    """The origin ``n0`` and further nodes around one switch ``s``."""
    names = [f"n{number}" for number in range(count)]
    return topology((link(n, "s", **changes) for n in names), origin="n0", switches="s")


def segment(
    id_: str, node: str, us: float, inputs: Sequence[str], outputs: Sequence[str]
) -> Segment:
    """A segment without atoms."""
    return Segment(
        id=id_,
        node=node,
        atoms=(),
        subgraphs=(),
        inputs=tuple(inputs),
        outputs=tuple(outputs),
        us=us,
        spread_us=0.0,
    )


def route(
    segments: Sequence[Segment],
    *,
    origin: str = "n0",
    sizes: Mapping[str, int] | None = None,
    weight: float = 1.0,
) -> Route:
    """A route with the transfers that its segments need, of 10 bytes unless `sizes` tells."""
    home = {tensor: one.node for one in segments for tensor in one.outputs}
    needed = dict.fromkeys((tensor, one.node) for one in segments for tensor in one.inputs)
    needed |= dict.fromkeys((tensor, origin) for tensor in home if tensor.startswith("output."))
    transfers = tuple(
        Transfer(
            tensor=tensor,
            source=home.get(tensor, origin),
            destination=node,
            bytes=(sizes or {}).get(tensor, 10),
            us=0.0,
        )
        for tensor, node in needed
        if home.get(tensor, origin) != node
    )
    return Route(weight=weight, segments=tuple(segments), transfers=transfers)


def chain(nodes: Sequence[str], us: Sequence[float], **options: Any) -> Route:
    """A route of segments one after another."""
    last = len(nodes) - 1
    segments = [
        segment(
            f"p{number}",
            node,
            us[number],
            [f"p{number - 1}.0" if number else "input.0"],
            ["output.0" if number == last else f"p{number}.0"],
        )
        for number, node in enumerate(nodes)
    ]
    return route(segments, **options)


def distributions(
    made: Topology,
    routes: Sequence[Route],
    without: Mapping[str, Sequence[Route]] | None = None,
    statistics: Statistics | None = None,
) -> Distributions:
    """A document with one distribution."""
    one = Distribution(
        target=Target(name="throughput"),
        routes=tuple(routes),
        metrics={},
        solver="none",
        time_s=0.0,
        without={node: tuple(some) for node, some in (without or {}).items()},
    )
    return Distributions(
        schema_version=1,
        model_name="m",
        model_hash="h",
        topology=made,
        statistics=statistics or Statistics(),
        classes={},
        plans={},
        distributions=(one,),
    )
