"""Requests in progress: attempts to answer them, and the runs of segments that those wait for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field

from layoutsel.cluster.distribution import Route, Segment
from layoutsel.cluster.engine import NodeTensor, SegmentRun, Tensors
from layoutsel.cluster.routing import Epoch


@dataclass(eq=False, kw_only=True)
class ClusterRequest:
    """A request, from its arrival to its only answer."""

    number: int
    """Number, in order of arrival."""
    inputs: Tensors
    """Inputs; kept until the answer, for the fallback."""
    tensors: Mapping[str, NodeTensor]
    """Inputs in the engine; kept until the answer, for replays."""
    start_s: float
    """Arrival, seconds of the monotonic clock."""
    future: Future[Tensors] = field(default_factory=Future)
    """The answer."""
    attempts: int = 0
    """Number of attempts so far."""
    attempt: Attempt | None = None
    """Current attempt; results of earlier ones come too late."""


@dataclass(eq=False, kw_only=True)
class Attempt:
    """One way of a request through the nodes."""

    request: ClusterRequest
    """The request."""
    epoch: Epoch
    """Epoch of the route."""
    route: Route
    """The route."""
    tensors: dict[str, NodeTensor]
    """Tensors at hand, by name."""
    waiting: list[Segment]
    """Segments that lack inputs."""
    tasks: set[SegmentTask] = field(default_factory=set)
    """Queued and running segments."""

    @classmethod
    def begin(cls, request: ClusterRequest, epoch: Epoch, route: Route) -> Attempt:
        """Make the next attempt at a request its current one."""
        request.attempt = cls(
            request=request,
            epoch=epoch,
            route=route,
            tensors=dict(request.tensors),
            waiting=list(route.segments),
        )
        return request.attempt

    @property
    def is_current(self) -> bool:
        """False once another attempt has replaced this one, or the request is answered."""
        return self.request.attempt is self

    def ready(self) -> list[Segment]:
        """Remove and return the waiting segments whose inputs are at hand."""
        ready = [one for one in self.waiting if self.tensors.keys() >= set(one.inputs)]
        self.waiting = [one for one in self.waiting if one not in ready]
        return ready

    def received(self, names: Iterable[str], destination: str, origin: str) -> dict[str, list[str]]:
        """Tensors that a node takes from other nodes, by source."""
        by_source: dict[str, list[str]] = {}
        for name in names:
            source = self.tensors[name].node or origin
            if source != destination:
                by_source.setdefault(source, []).append(name)
        return by_source

    def transfer_us(self, names: Iterable[str], destination: str) -> float:
        """Predicted time of the transfers of tensors to a node, microseconds."""
        wanted = set(names)
        return sum(
            one.us
            for one in self.route.transfers
            if one.tensor in wanted and one.destination == destination
        )

    def bytes_of(self, names: Iterable[str]) -> int:
        """Size of tensors that the route sends, bytes."""
        sizes: Mapping[str, int] = {one.tensor: one.bytes for one in self.route.transfers}
        return sum(sizes.get(name, 0) for name in names)


@dataclass(eq=False, kw_only=True)
class SegmentTask:
    """A segment of an attempt: queued, or running on its node."""

    attempt: Attempt
    """The attempt."""
    segment: Segment
    """The segment."""
    expected_us: float = 0.0
    """Expected time with its uncertainty, microseconds."""
    began_s: float = 0.0
    """Time of the start, seconds of the monotonic clock."""
    patience_s: float = 0.0
    """Time from the start to the deadline, seconds."""
    run: SegmentRun | None = None
    """The run; None in the queue and after its end."""
