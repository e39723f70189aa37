"""Statistics: one snapshot of a running topology; what is absent is as profiled."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from layoutsel import documents

SCHEMA_VERSION = 1
"""Version of statistics files."""


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
class Statistics:
    """Snapshot of a running topology."""

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
