"""Distributions: which node runs which part of a network, by target; files to read and edit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from layoutsel import documents
from layoutsel.cluster.statistics import Statistics
from layoutsel.cluster.topology import Topology
from layoutsel.planning.plan import Plan
from tvm_passes.decision import SubgraphId

SCHEMA_VERSION = 1
"""Version of distribution files."""


@dataclass(frozen=True, kw_only=True)
class Segment:
    """Atoms of the network that one node runs in one go, without waiting for another node."""

    id: str
    """Name, unique in the route: letters, digits and ``_``."""
    node: str
    """Node that runs it."""
    atoms: tuple[str, ...]
    """Atoms in order: stages of the plan of the node's machine class."""
    subgraphs: tuple[SubgraphId, ...]
    """Sub-graphs of the atoms."""
    inputs: tuple[str, ...]
    """Tensors from the origin or other segments: ``input.0``, ``head.0``."""
    outputs: tuple[str, ...]
    """Tensors for other segments, and outputs of the model: ``head.0``, ``output.0``."""
    us: float
    """Predicted time, microseconds."""
    spread_us: float
    """Uncertainty of `us`, microseconds."""


@dataclass(frozen=True, kw_only=True)
class Transfer:
    """A tensor that is sent from one node to another, once for all its readers there."""

    tensor: str
    """Name of the tensor."""
    source: str
    """Node that sends it."""
    destination: str
    """Node that receives it."""
    bytes: int
    """Size, bytes."""
    us: float
    """Predicted time without waiting, microseconds."""


@dataclass(frozen=True, kw_only=True)
class Route:
    """One way of a request through the nodes."""

    weight: float
    """Share of the requests that take it, 0 to 1; the weights of a distribution add up to 1."""
    segments: tuple[Segment, ...]
    """Segments, each after those that it reads."""
    transfers: tuple[Transfer, ...]
    """Transfers between the segments, and to and from the origin."""


@dataclass(frozen=True, kw_only=True)
class Metric:
    """One quantity of a distribution."""

    unit: str
    """Unit: ``us``, ``Hz``, ``J`` or ``bytes``."""
    predicted: float
    """Predicted value."""
    bound: float | None = None
    """Proven bound on the values of all distributions within the limits; None if not computed."""
    spread: float = 0.0
    """Uncertainty of the prediction."""
    simulated: float | None = None
    """Value of a simulation; None without one."""
    measured: float | None = None
    """Measured value; None without a measurement."""


@dataclass(frozen=True, kw_only=True)
class Target:
    """What a distribution is made for."""

    name: str
    """Metric to optimise: an entry of :data:`layoutsel.cluster.targets.TARGETS`."""
    limits: Mapping[str, float] = field(default_factory=dict, metadata=documents.OPTIONAL)
    """Largest (for throughput: least) values of other metrics, in their units."""


@dataclass(frozen=True, kw_only=True)
class Distribution:
    """Routes of the requests for one target, with all metrics."""

    target: Target
    """Target that it was made for."""
    routes: tuple[Route, ...]
    """Routes with their weights."""
    metrics: Mapping[str, Metric]
    """All metrics by name, also those that are not the target."""
    solver: str
    """Name of the solver that proved the bound."""
    time_s: float
    """Time that solving took, seconds."""
    without: Mapping[str, tuple[Route, ...]] = field(
        default_factory=dict, metadata=documents.OPTIONAL
    )
    """Routes without a single node, by node: what runs if it is lost."""


@dataclass(frozen=True, kw_only=True)
class Distributions:
    """Distributions of one network over one topology, by target."""

    schema_version: int
    """Version of the file format."""
    model_name: str
    """Name of the model."""
    model_hash: str
    """Hash of the model."""
    topology: Topology
    """Topology that they were made for."""
    statistics: Statistics
    """Snapshot that they were made for."""
    classes: Mapping[str, str]
    """Machine class by node: nodes of one class have equal plans and artifacts."""
    plans: Mapping[str, Plan]
    """Plan of the whole network with one stage for each atom, by machine class."""
    distributions: tuple[Distribution, ...]
    """One distribution for each target."""
