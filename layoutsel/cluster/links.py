"""Messages between nodes: their routes, and the one line of time over size that prices them.

A message passes processors and wires. Each link takes processor time at both of its ends, except at
switches. A run of links without a node between them is one step: its bytes follow each other
through all links at once, at the rate of the slowest. Steps come one after another, and half the
round trip of every link is added. The time of a message therefore is a line: a fixed part, and a
part for each byte. MessageRoutes that share a medium occupy it one after another.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from layoutsel.cluster.engine_times import FREE, EngineTimes
from layoutsel.cluster.statistics import LinkState, Statistics, stale_spread
from layoutsel.cluster.topology import Link, Topology
from layoutsel.cluster.topology_checks import neighbours, relays
from layoutsel.cost.place import memory_name
from layoutsel.planning.resources import Resources
from tvm_passes.devices import CPU, DeviceId
from tvm_passes.errors import LayoutselError

REFERENCE_BYTES = 1 << 20
"""Size of the message for which the routes are the quickest, bytes."""
RATE_SPREAD = 0.05
"""Relative uncertainty of a link's rate and round trip, when they were just measured."""


@dataclass(frozen=True, kw_only=True)
class LinearTime:
    """Time over the size of a message."""

    us: float = 0.0
    """Time of a message without bytes, microseconds."""
    us_per_byte: float = 0.0
    """Time of a byte, microseconds."""

    def at(self, size: float) -> float:
        """Time for `size` bytes, microseconds."""
        return self.us + self.us_per_byte * size

    def __add__(self, other: LinearTime) -> LinearTime:
        return LinearTime(us=self.us + other.us, us_per_byte=self.us_per_byte + other.us_per_byte)


@dataclass(frozen=True, kw_only=True)
class MessageStep:
    """One step of a message: on one processor, or through wires without a processor between."""

    busy: Mapping[str, LinearTime]
    """Time of occupation by resource."""
    delay_us: float = 0.0
    """Half the round trips of the links, microseconds."""

    @property
    def line(self) -> LinearTime:
        """Time of the step: that of its slowest resource, and the delay."""
        return LinearTime(
            us=max(line.us for line in self.busy.values()) + self.delay_us,
            us_per_byte=max(line.us_per_byte for line in self.busy.values()),
        )


@dataclass(frozen=True, kw_only=True)
class MessageRoute:
    """Way of messages from one node to another."""

    vertices: tuple[str, ...]
    """Vertices on the way, with both ends."""
    steps: tuple[MessageStep, ...]
    """Steps, one after another; those that take no time are absent."""
    nj_per_byte: float
    """Energy of a byte on all links, nanojoules."""
    spread: float
    """Relative uncertainty of the time."""

    @cached_property
    def line(self) -> LinearTime:
        """Time of a message over its size."""
        return sum((step.line for step in self.steps), LinearTime())

    def us(self, size: float) -> float:
        """Time of a message of `size` bytes, microseconds."""
        return self.line.at(size)

    def size(self, us: float) -> float:
        """Size of a message that takes `us` microseconds, bytes; the inverse of :meth:`us`."""
        return max(us - self.line.us, 0.0) / self.line.us_per_byte

    def resources(self, size: float) -> tuple[Resources, ...]:
        """Resources of each step of a message of `size` bytes; they last as long as :meth:`us`."""
        return tuple(
            Resources(
                busy_us={name: line.at(size) for name, line in step.busy.items()},
                delay_us=step.delay_us,
            )
            for step in self.steps
        )


class MessageRoutes:
    """Routes between the nodes of a topology in a state; the quickest for a megabyte.

    Parameters
    ----------
    topology
        Vertices and links.
    statistics
        State of the links, and the load of processors.
    engine
        Time of the engine that sends the messages and starts their readers.
    """

    def __init__(
        self,
        topology: Topology,
        statistics: Statistics | None = None,
        engine: EngineTimes = FREE,
    ) -> None:
        self.topology = topology
        self.statistics = statistics or Statistics()
        self.engine = engine
        self._relays = relays(topology)
        self._states = {frozenset((s.source, s.target)): s for s in self.statistics.links}
        self._joined = {
            vertex: {other: self._now(link) for other, link in links.items()}
            for vertex, links in neighbours(topology).items()
        }
        self._trees: dict[str, Mapping[str, str]] = {}
        self._routes: dict[tuple[str, str], MessageRoute] = {}

    def route(self, source: str, destination: str) -> MessageRoute:
        """Return the route between two different nodes.

        Raises
        ------
        LayoutselError
            If messages from `source` do not reach `destination`.
        """
        pair = source, destination
        if pair not in self._routes:
            self._routes[pair] = self._route(*pair)
        return self._routes[pair]

    def call_us(self, node: str) -> float:
        """Time in which a node calls the code of a segment, microseconds."""
        return self.engine.call_us * self.statistics.slowdown(node)

    def hand_over(self, source: str, destination: str, *, made: bool, read: bool) -> LinearTime:
        """Time over its size of a tensor from its maker to its reader, with the engine's own time.

        Parameters
        ----------
        source, destination
            Nodes of the maker and the reader.
        made
            True if a segment makes it, whose node then waits; False for an input of the model.
        read
            True if a segment reads it; False for a result of the model. Each request has its first
            segment anyway, so that inputs start no further one.
        """
        engine, slowdown = self.engine, self.statistics.slowdown
        more_us = engine.message_us
        if made:
            more_us += engine.wake_us * slowdown(source)
        if made and read:
            more_us += engine.segment_us + engine.call_us * slowdown(destination)
        return self.route(source, destination).line + LinearTime(us=more_us)

    def processor(self, node: str) -> str:
        """Name of a node's processor as a resource, and of its memory; see :func:`memory_of`."""
        return memory_of(self.topology, node)

    def _now(self, link: Link) -> Link:
        """Copy a link with its present rate and round trip."""
        state = self._states.get(frozenset((link.source, link.target)))
        if state is None:
            return link
        gbps = link.gbps if state.gbps is None else state.gbps
        return replace(
            link, gbps=gbps, rtt_us=link.rtt_us if state.rtt_us is None else state.rtt_us
        )

    def _route(self, source: str, destination: str) -> MessageRoute:
        if source not in self._trees:
            self._trees[source] = self._tree(source)
        before = self._trees[source]
        if destination not in before or source == destination:
            raise LayoutselError(
                f"no route from node {source!r} to {destination!r}: expected links between them, "
                f"over switches or gateways"
            )
        vertices = [destination]
        while vertices[-1] != source:
            vertices.append(before[vertices[-1]])
        vertices.reverse()
        hops = [(a, b, self._joined[a][b]) for a, b in itertools.pairwise(vertices)]
        return MessageRoute(
            vertices=tuple(vertices),
            steps=tuple(self._steps(hops)),
            nj_per_byte=sum(link.nj_per_byte for _, _, link in hops),
            spread=max(self._spread(link) for _, _, link in hops),
        )

    def _tree(self, source: str) -> Mapping[str, str]:
        """Find the vertex before each other one on its quickest way from `source` (Dijkstra)."""
        before: dict[str, str] = {}
        queue = [(0.0, 0, source, source)]
        while queue:
            us, count, vertex, previous = heapq.heappop(queue)
            if vertex in before:
                continue
            before[vertex] = previous
            if vertex != source and vertex not in self._relays:
                continue
            for other, link in self._joined[vertex].items():
                if other not in before:
                    more_us = link.rtt_us / 2 + REFERENCE_BYTES * us_per_byte(link.gbps)
                    heapq.heappush(queue, (us + more_us, count + 1, other, vertex))
        return before

    def _steps(self, hops: Sequence[tuple[str, str, Link]]) -> Iterator[MessageStep]:
        """Yield the steps of a route: processors, and wires between them."""
        wires: dict[str, LinearTime] = {}
        delay_us = 0.0
        for source, destination, link in hops:
            if (sending := self._processing(source, link)) is not None:
                yield sending
            name = _wire(source, destination, link)
            wires[name] = wires.get(name, LinearTime()) + LinearTime(
                us_per_byte=us_per_byte(link.gbps)
            )
            delay_us += link.rtt_us / 2
            if self.topology.by_id[destination].kind == "node":
                yield MessageStep(busy=wires, delay_us=delay_us)
                wires, delay_us = {}, 0.0
                if (receiving := self._processing(destination, link)) is not None:
                    yield receiving

    def _processing(self, vertex: str, link: Link) -> MessageStep | None:
        """Work of a link's end; None for a switch, or if it takes no time."""
        if self.topology.by_id[vertex].kind != "node" or not (link.cpu_us or link.cpu_ns_per_byte):
            return None
        slow = self.statistics.slowdown(vertex)
        line = LinearTime(us=link.cpu_us * slow, us_per_byte=link.cpu_ns_per_byte * slow / 1e3)
        return MessageStep(busy={self.processor(vertex): line})

    def _spread(self, link: Link) -> float:
        state: LinkState | None = self._states.get(frozenset((link.source, link.target)))
        return RATE_SPREAD + (stale_spread(state.age_s) if state is not None else 0.0)


def memory_of(topology: Topology, node: str) -> str:
    """Name of the memory of a node's processors in planning problems.

    The origin is the host: model inputs and results lie there.
    """
    return memory_name(DeviceId("" if node == topology.origin else node, CPU, 0))


def us_per_byte(gbps: float) -> float:
    """Time of a byte at a rate in gigabits per second, microseconds."""
    return 8e-3 / gbps


def _wire(source: str, destination: str, link: Link) -> str:
    """Name of the resource that a link is in one direction; no node or memory has such a name."""
    if link.shares:
        return f"medium {link.shares}"
    if link.duplex == "half":
        return f"link {link.source}-{link.target}"
    return f"link {source}>{destination}"
