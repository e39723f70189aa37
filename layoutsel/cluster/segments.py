"""Distribution for one target: routes of segments and transfers, with all metrics."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from layoutsel import documents
from tvm_passes.decision import SubgraphId

UNITS: Mapping[str, str] = {
    "latency": "us",
    "throughput": "Hz",
    "energy": "J",
    "memory": "bytes",
}
"""Unit of each metric."""
SHOWN: Mapping[str, tuple[float, str]] = {
    "us": (1e-3, "ms"),
    "Hz": (1.0, "Hz"),
    "J": (1.0, "J"),
    "bytes": (1e-6, "MB"),
}
"""Factor and unit in which values are shown, by their unit."""


def shown(value: float, unit: str) -> str:
    """Value with its unit, as people read it."""
    factor, name = SHOWN.get(unit, (1.0, unit))
    return f"{value * factor:.4g} {name}"


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
    elsewhere: Mapping[str, float] = field(default_factory=dict, metadata=documents.OPTIONAL)
    """Value of the distribution's target if another node ran the segment, by node.

    Nodes on which it would break a limit, or that were not tried in time, are absent.
    """


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
    """Predicted time without waiting, microseconds; without a transform by the receiver."""


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
    """Metric that a distribution optimises, within limits of others."""

    name: str
    """Metric to optimise: an entry of :data:`layoutsel.cluster.targets.TARGETS`."""
    limits: Mapping[str, float] = field(default_factory=dict, metadata=documents.OPTIONAL)
    """Largest (for throughput: least) values of metrics, in their units."""

    @property
    def label(self) -> str:
        """Name with the limits, such as ``throughput (latency 50 ms)``."""
        limits = ", ".join(
            f"{name} {shown(limit, UNITS.get(name, ''))}" for name, limit in self.limits.items()
        )
        return f"{self.name} ({limits})" if limits else self.name


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
    wider_bound: float | None = field(default=None, metadata=documents.OPTIONAL)
    """Bound on the target's metric if each node's plan could change as well; None if unknown.

    The bounds of the metrics hold for distributions of the plans at hand.
    """
    without: Mapping[str, tuple[Route, ...]] = field(
        default_factory=dict, metadata=documents.OPTIONAL
    )
    """Routes without a single node, by node: what runs if it is lost."""

    @property
    def nodes(self) -> tuple[str, ...]:
        """Nodes that run segments, in order of their first one."""
        used = (segment.node for route in self.routes for segment in route.segments)
        return tuple(dict.fromkeys(used))

    @property
    def gap(self) -> float | None:
        """Relative gap between the target's metric and its bound; None without a bound."""
        own = self.metrics[self.target.name]
        if own.bound is None:
            return None
        return abs(own.predicted - own.bound) / max(abs(own.predicted), abs(own.bound), 1e-300)
