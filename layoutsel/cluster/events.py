"""Events of a running distribution, for statistics and traces."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from layoutsel.cluster.distribution import Segment
from layoutsel.cluster.engine import RunTimes


@dataclass(frozen=True, kw_only=True)
class SegmentRan:
    """End of a run of a segment."""

    request: int
    """Number of the request."""
    epoch: int
    """Number of the epoch."""
    segment: Segment
    """The segment, with its node."""
    end_s: float
    """Time at which the controller knew of the end, seconds of the monotonic clock."""
    times: RunTimes
    """Durations that the node reports."""


@dataclass(frozen=True, kw_only=True)
class TensorsSent:
    """Transfer of tensors from one node to another."""

    request: int
    """Number of the request."""
    source: str
    """Node that sent them."""
    destination: str
    """Node that received them."""
    tensors: tuple[str, ...]
    """Names of the tensors."""
    bytes: int
    """Size of the tensors, bytes."""
    start_s: float
    """Start, seconds of the monotonic clock."""
    us: float
    """Duration with the engine's own messages, microseconds."""


@dataclass(frozen=True, kw_only=True)
class RequestAnswered:
    """End of a request."""

    request: int
    """Number of the request."""
    start_s: float
    """Start, seconds of the monotonic clock."""
    us: float
    """Latency, microseconds."""
    attempts: int
    """Number of attempts; 1 without a replay."""


ClusterEvent = SegmentRan | TensorsSent | RequestAnswered
"""Anything that an observer is told."""
Observer = Callable[[ClusterEvent], None]
"""Function that the controller calls on its own thread; it must return soon."""
