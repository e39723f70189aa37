"""Statistics: one snapshot of a running topology; what is absent is as profiled."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from layoutsel import documents
from layoutsel.documents.saved import Fault, SavedDocument, reject

if TYPE_CHECKING:
    from layoutsel.cluster.topology import Topology

SCHEMA_VERSION = 1
"""Version of statistics files."""
MOST_BUSY = 0.95
"""Largest share of a node's processors that other work is assumed to occupy.

Operating systems divide processors among all that ask for them, so that no load takes everything.
"""
STALE_S, STALE_SPREAD, MOST_SPREAD = 30.0, 0.1, 0.5
"""Age of a state, seconds; the relative uncertainty it adds at that age; and the largest one.

A state drifts like a random walk, so the uncertainty grows with the root of its age.
"""


def stale_spread(age_s: float) -> float:
    """Relative uncertainty that the age of a state adds to prices, half the interquartile range."""
    return min(STALE_SPREAD * math.sqrt(max(age_s, 0.0) / STALE_S), MOST_SPREAD)


@dataclass(frozen=True, kw_only=True)
class NodeState:
    """State of a node."""

    others_busy: float = field(default=0.0, metadata=documents.OPTIONAL)
    """Share of the node's processors that other work occupies, 0 to 1."""
    free_bytes: float | None = field(default=None, metadata=documents.OPTIONAL)
    """Free memory; None if unknown."""
    queue: float = field(default=0.0, metadata=documents.OPTIONAL)
    """Mean number of waiting requests."""
    age_s: float = field(default=0.0, metadata=documents.OPTIONAL)
    """Age of the state, seconds; older states have a larger spread."""


@dataclass(frozen=True, kw_only=True)
class LinkState:
    """State of a link; None as in the topology."""

    source: str
    """Id of one end."""
    target: str
    """Id of the other end."""
    gbps: float | None = field(default=None, metadata=documents.OPTIONAL)
    """Rate, gigabits per second."""
    rtt_us: float | None = field(default=None, metadata=documents.OPTIONAL)
    """Round trip of a small message, microseconds."""
    age_s: float = field(default=0.0, metadata=documents.OPTIONAL)
    """Age of the state, seconds; older states have a larger spread."""


@dataclass(frozen=True, kw_only=True)
class SegmentTimes:
    """Measured compute time of a segment."""

    us: float
    """Mean time, microseconds."""
    spread_us: float
    """Half the interquartile range, microseconds."""
    runs: int
    """Number of runs."""


@dataclass(frozen=True, kw_only=True)
class Requests:
    """Requests of the last seconds."""

    rate_hz: float
    """Requests per second."""
    in_flight: float
    """Mean number of requests in progress."""
    p50_us: float
    """Median latency, microseconds."""
    p95_us: float
    """Latency that 5 % of requests exceed, microseconds."""
    p99_us: float
    """Latency that 1 % of requests exceed, microseconds."""


@dataclass(frozen=True, kw_only=True)
class Statistics(SavedDocument):
    """Snapshot of a running topology."""

    VERSIONS = (SCHEMA_VERSION,)
    ADVICE = "Write the statistics anew with 'layoutsel cluster stats -o FILE'"

    schema_version: int = SCHEMA_VERSION
    """Version of the file format."""
    nodes: Mapping[str, NodeState] = field(default_factory=dict, metadata=documents.OPTIONAL)
    """State by node; absent ones are idle."""
    links: tuple[LinkState, ...] = field(default=(), metadata=documents.OPTIONAL)
    """State of links; absent ones are as in the topology."""
    segments: Mapping[str, SegmentTimes] = field(default_factory=dict, metadata=documents.OPTIONAL)
    """Measured times by segment."""
    requests: Requests | None = field(default=None, metadata=documents.OPTIONAL)
    """Requests; None without any."""

    def slowdown(self, node: str) -> float:
        """Factor on the times of a node's processors, because other work occupies them."""
        state = self.nodes.get(node)
        return 1.0 if state is None else 1 / (1 - min(state.others_busy, MOST_BUSY))

    def spread(self, node: str) -> float:
        """Relative uncertainty that the age of a node's state adds to its times."""
        state = self.nodes.get(node)
        return 0.0 if state is None else stale_spread(state.age_s)

    def free_bytes(self, node: str) -> float | None:
        """Free memory of a node; None if unknown."""
        state = self.nodes.get(node)
        return None if state is None else state.free_bytes

    @classmethod
    def load(cls, file: Path | str, topology: Topology | None = None) -> Statistics:
        """Read statistics that :meth:`save` wrote, for a topology if one is given.

        Raises
        ------
        DocumentError
            If `file` is not a complete snapshot, or names vertices that the topology lacks.
        """
        return cls.read(documents.load_json(file), topology, file=str(file))

    @classmethod
    def read(
        cls, document: Any, topology: Topology | None = None, *, file: str = "document"
    ) -> Statistics:
        """Read statistics from JSON; errors as in :meth:`load`."""
        found = super().read(document, file=file)
        found.check(topology, file=file)
        return found

    def check(self, topology: Topology | None = None, *, file: str = "statistics") -> None:
        """Reject values out of range, and vertices that `topology` lacks.

        Raises
        ------
        DocumentError
            At the first such value.
        """
        reject(self.faults(topology), file)

    def faults(self, topology: Topology | None = None) -> Iterator[Fault]:
        """Yield values out of range, and vertices that `topology` lacks."""
        yield from self._out_of_range()
        if topology is not None:
            yield from self._unknown(topology)

    def _out_of_range(self) -> Iterator[Fault]:
        for name, node in self.nodes.items():
            yield from _faults(node, _OF_NODES, f"$.nodes.{name}")
        for number, link in enumerate(self.links):
            yield from _faults(link, _OF_LINKS, f"$.links[{number}]")
        for name, times in self.segments.items():
            yield from _faults(times, _OF_SEGMENTS, f"$.segments.{name}")
        if self.requests is not None:
            yield from _faults(self.requests, _OF_REQUESTS, "$.requests")

    def _unknown(self, topology: Topology) -> Iterator[Fault]:
        known = {node.id for node in topology.computing}
        for name in self.nodes:
            if name not in known:
                yield f"$.nodes.{name}", "an unknown node", f"one of {', '.join(sorted(known))}"
        pairs = {frozenset((link.source, link.target)) for link in topology.links}
        for number, link in enumerate(self.links):
            if frozenset((link.source, link.target)) not in pairs:
                got = f"a link between {link.source!r} and {link.target!r}"
                yield f"$.links[{number}]", got, "a link of the topology"


_Rule = tuple[str, Callable[[Any], bool], str]
"""Name of a field, condition on its value, and the condition in words."""


def _at_least_0(*names: str) -> tuple[_Rule, ...]:
    return tuple((name, lambda v: v is None or v >= 0, "a number of at least 0") for name in names)


_OF_NODES: Sequence[_Rule] = (
    ("others_busy", lambda share: 0 <= share <= 1, "a share from 0 to 1"),
    *_at_least_0("free_bytes", "queue", "age_s"),
)
_OF_LINKS: Sequence[_Rule] = (
    ("gbps", lambda rate: rate is None or rate > 0, "a rate above 0"),
    *_at_least_0("rtt_us", "age_s"),
)
_OF_SEGMENTS = _at_least_0("us", "spread_us", "runs")
_OF_REQUESTS = _at_least_0("rate_hz", "in_flight", "p50_us", "p95_us", "p99_us")


def _faults(value: object, rules: Sequence[_Rule], path: str) -> Iterator[Fault]:
    for name, holds, expected in rules:
        if not holds(getattr(value, name)):
            yield f"{path}.{name}", repr(getattr(value, name)), expected
