"""Links of the origin in a topology of two devices, one of which a network uses.

A device with several links, such as Wi-Fi and 5G, reaches the other one over any of them. A link is
called like the vertex at its other end: a switch, or the other device if they are joined directly.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from layoutsel.cluster.links import MessageRoutes
from layoutsel.cluster.statistics import Statistics
from layoutsel.cluster.topology import Topology
from tvm_passes.errors import LayoutselError

ANY = ""
"""Name of the link of a topology without a choice: the quickest way."""


def topologies_by_link(topology: Topology) -> Mapping[str, Topology]:
    """Topology with each of the origin's links as its only one, by the link's name.

    Links that lead to no other device are left out. A topology with a single remaining link is
    returned whole under the name :data:`ANY`.
    """
    origin = topology.origin
    own = [link for link in topology.links if origin in (link.source, link.target)]
    found = {}
    for kept in own:
        others = tuple(link for link in topology.links if link is kept or link not in own)
        alone = replace(topology, links=others)
        if not any(alone.faults()):
            found[kept.target if kept.source == origin else kept.source] = alone
    return found if len(found) > 1 else {ANY: topology}


def over_link(topology: Topology, statistics: Statistics, link: str) -> tuple[Topology, Statistics]:
    """Topology with one of the origin's links, and the state of what remains.

    Parameters
    ----------
    topology, statistics
        Devices and links, and their state.
    link
        Name of the link; :data:`ANY` for the whole topology.

    Raises
    ------
    LayoutselError
        If there is no such link.
    """
    if link == ANY:
        return topology, statistics
    every = topologies_by_link(topology)
    if link not in every:
        known = ", ".join(repr(name) for name in every if name != ANY) or "none to choose"
        raise LayoutselError(f"link {link!r}: got no such link of the origin; expected {known}")
    pairs = {frozenset((one.source, one.target)) for one in every[link].links}
    states = tuple(one for one in statistics.links if frozenset((one.source, one.target)) in pairs)
    return every[link], replace(statistics, links=states)


def routes_by_link(routes: MessageRoutes) -> Mapping[str, MessageRoutes]:
    """Routes over each of the origin's links, by name; see :func:`topologies_by_link`."""
    return {
        name: MessageRoutes(*over_link(routes.topology, routes.statistics, name), routes.engine)
        for name in topologies_by_link(routes.topology)
    }
