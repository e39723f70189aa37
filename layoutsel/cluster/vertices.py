"""Vertices and links of topologies: the data, as networkx's node-link JSON holds them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

from layoutsel import documents

NODE, SWITCH = "node", "switch"
"""Kinds of vertices: a node computes; a switch only relays."""


@dataclass(frozen=True, kw_only=True)
class Power:
    """Electrical power of a node, watts."""

    idle: float
    """Power without work."""
    busy: float
    """Power while a sub-graph runs."""


@dataclass(frozen=True, kw_only=True)
class Node:
    """A vertex of a topology: a machine that computes, or a relay."""

    id: str
    """Name, unique in the topology; devices of the node are called ``<id>/cpu/0``."""
    kind: str = field(default=NODE, metadata=documents.OPTIONAL)
    """:data:`NODE` or :data:`SWITCH`."""
    machine: str = field(default="", metadata=documents.OPTIONAL)
    """File that describes the machine, relative to the topology's; empty for this machine."""
    threads: int | None = field(default=None, metadata=documents.OPTIONAL)
    """Number of threads; None for those of the machine file."""
    memory_bytes: float | None = field(default=None, metadata=documents.OPTIONAL)
    """Memory for weights and activations; None without a limit."""
    units: tuple[str, ...] = field(default=(), metadata=documents.OPTIONAL)
    """Compute units to choose from; empty for all that are available."""
    engine: str = field(default="ray", metadata=documents.OPTIONAL)
    """Engine that runs segments on this node."""
    via: str = field(default="", metadata=documents.OPTIONAL)
    """Node that acts as gateway; empty without one."""
    labels: Mapping[str, str] = field(default_factory=dict, metadata=documents.OPTIONAL)
    """Labels by name, as given to the engine's node."""
    power_w: Power | None = field(default=None, metadata=documents.OPTIONAL)
    """Power; None if unknown, and then energy is no target."""


@dataclass(frozen=True, kw_only=True)
class Link:
    """A connection between two vertices."""

    source: str
    """Id of one end."""
    target: str
    """Id of the other end."""
    gbps: float
    """Rate in each direction, gigabits per second, as attained through the engine."""
    rtt_us: float
    """Round trip of a small message, microseconds."""
    duplex: str = field(default="full", metadata=documents.OPTIONAL)
    """``full``, or ``half`` if both directions share the rate."""
    shares: str = field(default="", metadata=documents.OPTIONAL)
    """Name of the medium whose rate several links share, such as ``wifi-1``; empty without one."""
    nj_per_byte: float = field(default=0.0, metadata=documents.OPTIONAL)
    """Energy of a byte, nanojoules."""
    cpu_us: float = field(default=0.0, metadata=documents.OPTIONAL)
    """Processor time of a message at each end, microseconds."""
    cpu_ns_per_byte: float = field(default=0.0, metadata=documents.OPTIONAL)
    """Processor time of a byte at each end, nanoseconds."""


@dataclass(frozen=True, kw_only=True)
class Header:
    """Attributes of the whole topology."""

    schema_version: int
    """Version of the file format."""
    origin: str
    """Node that holds the inputs and takes the results."""


@dataclass(frozen=True, kw_only=True)
class TopologyData:
    """Nodes and links; the fields are those of networkx's node-link JSON."""

    directed: bool
    """False: every link has two directions."""
    multigraph: bool
    """False: at most one link joins two vertices."""
    graph: Header
    """Attributes of the whole topology."""
    nodes: tuple[Node, ...]
    """Nodes and switches."""
    links: tuple[Link, ...]
    """Links."""

    @cached_property
    def by_id(self) -> Mapping[str, Node]:
        """Vertices by id."""
        return {node.id: node for node in self.nodes}

    @property
    def origin(self) -> str:
        """Node that holds the inputs and takes the results."""
        return self.graph.origin

    @property
    def computing(self) -> tuple[Node, ...]:
        """Vertices that compute, in order: all but the switches."""
        return tuple(node for node in self.nodes if node.kind == NODE)
