"""Checks of topologies: each violation is one error with file, path, got and expected."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from layoutsel.cluster.vertices import NODE, SWITCH, Link, Node, TopologyData
from layoutsel.documents.saved import Fault
from tvm_passes.devices import NAME

_NAME = re.compile(NAME, re.ASCII)
_KINDS = (NODE, SWITCH)
_DUPLEX = ("full", "half")

_Check = tuple[str, Callable[[Any], bool], str]
"""Name of a field, condition on its value, and the condition in words."""

_OF_NODES: Sequence[_Check] = (
    ("id", lambda id_: bool(_NAME.fullmatch(id_)), "letters, digits, '_', '.' and '-'"),
    ("kind", lambda kind: kind in _KINDS, "one of node, switch"),
    ("threads", lambda threads: threads is None or threads >= 1, "at least 1 thread"),
    ("memory_bytes", lambda size: size is None or size > 0, "a number above 0"),
)
_OF_LINKS: Sequence[_Check] = (
    ("gbps", lambda rate: rate > 0, "a rate above 0"),
    ("rtt_us", lambda time: time >= 0, "a time of at least 0"),
    ("duplex", lambda duplex: duplex in _DUPLEX, "one of full, half"),
    ("nj_per_byte", lambda energy: energy >= 0, "an energy of at least 0"),
    ("cpu_us", lambda time: time >= 0, "a time of at least 0"),
    ("cpu_ns_per_byte", lambda time: time >= 0, "a time of at least 0"),
)
_WORK: Mapping[str, object] = {
    "machine": "",
    "threads": None,
    "memory_bytes": None,
    "units": (),
    "via": "",
    "power_w": None,
}
"""Fields of a node that computes, with their values for a switch."""


def topology_faults(topology: TopologyData, links: str) -> Iterator[Fault]:
    """Yield the inconsistencies of a topology; later ones may follow from the first.

    Parameters
    ----------
    topology
        Topology to check.
    links
        Name of the list of links in the file.
    """
    for faults in (_header, _nodes, _gateways, _links, _connection):
        yield from faults(topology, links)


def _header(topology: TopologyData, _: str) -> Iterator[Fault]:
    for name in ("directed", "multigraph"):
        if getattr(topology, name):
            yield f"$.{name}", "true", "false: a link has two directions, and joins a pair once"


def _nodes(topology: TopologyData, _: str) -> Iterator[Fault]:
    known: dict[str, int] = {}
    for number, node in enumerate(topology.nodes):
        path = f"$.nodes[{number}]"
        yield from _fields(node, _OF_NODES, path)
        if node.id in known:
            yield f"{path}.id", repr(node.id), f"another id than that of $.nodes[{known[node.id]}]"
        known[node.id] = number
        if node.kind == SWITCH:
            yield from _relay(node, path)
        if node.power_w is not None and not 0 <= node.power_w.idle <= node.power_w.busy:
            got = f"idle {node.power_w.idle:g}, busy {node.power_w.busy:g}"
            yield f"{path}.power_w", got, "watts with 0 <= idle <= busy"
    if not topology.nodes:
        yield "$.nodes", "[]", "at least one node"


def _relay(node: Node, path: str) -> Iterator[Fault]:
    for name, empty in _WORK.items():
        if getattr(node, name) != empty:
            yield (
                f"{path}.{name}",
                str(getattr(node, name)),
                f"no {name}: switch {node.id!r} only relays, and computes nothing",
            )


def _gateways(topology: TopologyData, _: str) -> Iterator[Fault]:
    by_id = topology.by_id
    joined = {frozenset((link.source, link.target)) for link in topology.links}
    for number, node in enumerate(topology.nodes):
        if not node.via:
            continue
        path, gateway = f"$.nodes[{number}].via", by_id.get(node.via)
        if gateway is None:
            yield path, repr(node.via), _one_of(topology)
        elif gateway.kind == SWITCH or gateway.via or gateway is node:
            yield path, repr(node.via), "another node that computes and has no gateway itself"
        elif frozenset((node.id, node.via)) not in joined:
            yield path, repr(node.via), f"a link between {node.id!r} and its gateway"
        if node.id == topology.origin:
            yield path, repr(node.via), "no gateway: this node is the origin"


def _links(topology: TopologyData, links: str) -> Iterator[Fault]:
    known: dict[frozenset[str], int] = {}
    for number, link in enumerate(topology.links):
        path = f"$.{links}[{number}]"
        for end in ("source", "target"):
            if getattr(link, end) not in topology.by_id:
                yield f"{path}.{end}", repr(getattr(link, end)), _one_of(topology)
        if link.source == link.target:
            yield f"{path}.target", repr(link.target), "another vertex than the source"
        yield from _fields(link, _OF_LINKS, path)
        first = known.setdefault(frozenset((link.source, link.target)), number)
        if first != number:
            got = f"a second link between {link.source!r} and {link.target!r}"
            yield path, got, f"one link for each pair; the first is $.{links}[{first}]"


def _connection(topology: TopologyData, links: str) -> Iterator[Fault]:
    origin = topology.by_id.get(topology.origin)
    if origin is None or origin.kind == SWITCH:
        yield "$.graph.origin", repr(topology.origin), "the id of a node that computes"
        return
    joined, relaying = neighbours(topology), relays(topology)
    for source in topology.computing:
        reached = _reached(source.id, joined, relaying)
        for number, node in enumerate(topology.nodes):
            if node.kind == NODE and node.id not in reached:
                yield (
                    f"$.nodes[{number}].id",
                    f"{node.id!r}, which messages from {source.id!r} do not reach",
                    f"a way over $.{links}; switches relay, and so do gateways (via)",
                )


def relays(topology: TopologyData) -> frozenset[str]:
    """Vertices that pass messages of others on: switches, and gateways."""
    gateways = (node.via for node in topology.nodes if node.via)
    return frozenset((*(node.id for node in topology.nodes if node.kind == SWITCH), *gateways))


def neighbours(topology: TopologyData) -> Mapping[str, Mapping[str, Link]]:
    """Links that messages use, by both ends; a node with a gateway has no other way."""
    found: dict[str, dict[str, Link]] = {node.id: {} for node in topology.nodes}
    via = {node.id: node.via for node in topology.nodes}
    for link in topology.links:
        ends = link.source, link.target
        if all(via[one] in ("", other) for one, other in (ends, ends[::-1])):
            found[link.source][link.target] = link
            found[link.target][link.source] = link
    return found


def _reached(
    source: str, joined: Mapping[str, Mapping[str, Link]], relaying: frozenset[str]
) -> set[str]:
    """Find the vertices that messages from `source` reach."""
    reached, open_ = {source}, [source]
    while open_:
        vertex = open_.pop()
        if vertex == source or vertex in relaying:
            added = joined[vertex].keys() - reached
            reached |= added
            open_ += added
    return reached


def _fields(value: object, checks: Sequence[_Check], path: str) -> Iterator[Fault]:
    for name, holds, expected in checks:
        got = getattr(value, name)
        if not holds(got):
            yield f"{path}.{name}", repr(got), expected


def _one_of(topology: TopologyData) -> str:
    return f"one of {', '.join(node.id for node in topology.nodes)}"
