"""Observation of a running distribution, and the decision to replace it."""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from layoutsel.cluster.distribution import Distribution, Segment
from layoutsel.cluster.events import ClusterEvent, RequestAnswered, SegmentRan, TensorsSent
from layoutsel.cluster.statistics import LinkState, NodeState, Requests, SegmentTimes, Statistics

TIME_CONSTANT_S = 5.0
"""Age at which an observation has lost 63 % of its weight, seconds."""
_TO_SIGMA = 1.4826
"""Standard deviation of a normal distribution over its median absolute deviation."""
_LARGE_BYTES = 64 << 10
"""Size from which on a message tells a link's rate."""
SILENT_S = 3.0
"""Time without messages after which the state of a link is forgotten, seconds."""
_RECENT = 2000
"""Number of latest requests that latencies and rate come from."""
LEAST_GAIN, SIGMAS, SNAPSHOTS = 0.05, 2.0, 3
"""Relative gain, multiple of its uncertainty and consecutive snapshots that justify a change."""


@dataclass
class MovingMean:
    """Mean and spread of observations, in which later ones count more."""

    mean: float = 0.0
    """Weighted mean."""
    deviation: float = 0.0
    """Weighted mean of the absolute deviation."""
    runs: int = 0
    """Number of observations."""
    last_s: float = 0.0
    """Time of the last observation, seconds of the monotonic clock."""

    def add(self, value: float, now_s: float) -> None:
        """Add an observation."""
        # Frequent observations form the mean over the time constant; rare ones replace it.
        share = 1 - math.exp(-(now_s - self.last_s) / TIME_CONSTANT_S) if self.runs else 1.0
        share = max(share, 1 / (self.runs + 1))
        self.deviation += share * (abs(value - self.mean) - self.deviation) if self.runs else 0.0
        self.mean += share * (value - self.mean)
        self.runs += 1
        self.last_s = now_s

    @property
    def sigma(self) -> float:
        """Standard deviation."""
        return _TO_SIGMA * self.deviation


@dataclass
class _LinkTimes:
    """Messages over one direction of a link."""

    small_us: MovingMean = field(default_factory=MovingMean)
    """Time of small messages."""
    large_us_per_byte: MovingMean = field(default_factory=MovingMean)
    """Time of a byte of large messages."""


def segment_key(segment: Segment) -> str:
    """Name of a segment in statistics: ids are unique within a route alone."""
    ends = dict.fromkeys((segment.atoms[0], segment.atoms[-1]))
    return f"{segment.node}/{'-'.join(ends)}"


class Observations:
    """Collects times of segments, links and requests; an observer of a controller."""

    def __init__(self) -> None:
        self._turn = threading.Lock()
        self._segments: dict[str, MovingMean] = {}
        self._queues: dict[str, MovingMean] = {}
        self._links: dict[tuple[str, str], _LinkTimes] = {}
        self._answers: deque[RequestAnswered] = deque(maxlen=_RECENT)

    def __call__(self, event: ClusterEvent) -> None:
        """Take an event."""
        with self._turn:
            if isinstance(event, SegmentRan):
                times = event.times
                own = self._segments.setdefault(segment_key(event.segment), MovingMean())
                own.add(times.total_us - times.queue_us, event.end_s)
                queue = self._queues.setdefault(event.segment.node, MovingMean())
                queue.add(times.queue_us / max(times.compute_us, 1.0), event.end_s)
            elif isinstance(event, TensorsSent):
                self._send(event)
            else:
                self._answers.append(event)

    def expected_us(self, segment: Segment) -> float | None:
        """Observed time of a segment; None before its first run."""
        with self._turn:
            found = self._segments.get(segment_key(segment))
            return found.mean + found.sigma if found is not None else None

    def snapshot(self, nodes: Mapping[str, NodeState] | None = None) -> Statistics:
        """Statistics of the last seconds, with the current states of nodes."""
        now_s = time.monotonic()
        with self._turn:
            states = {
                node: replace(state, queue=self._queues.get(node, MovingMean()).mean)
                for node, state in (nodes or {}).items()
            }
            segments = {
                # Half the interquartile range of a normal distribution is its absolute deviation.
                key: SegmentTimes(us=one.mean, spread_us=one.deviation, runs=one.runs)
                for key, one in self._segments.items()
            }
            return Statistics(
                nodes=states,
                links=tuple(self._link_states(now_s)),
                segments=segments,
                requests=self._requests(now_s),
            )

    def _send(self, event: TensorsSent) -> None:
        link = self._links.setdefault((event.source, event.destination), _LinkTimes())
        now_s = event.start_s + 1e-6 * event.us
        if event.bytes < _LARGE_BYTES:
            link.small_us.add(event.us, now_s)
        else:
            fixed_us = min(link.small_us.mean, 0.9 * event.us)
            link.large_us_per_byte.add((event.us - fixed_us) / event.bytes, now_s)

    def _link_states(self, now_s: float) -> list[LinkState]:
        """States of the links; of two directions, the slower one counts.

        A link that has been silent is left out: it may have become as it was. A distribution that
        would use it is tried first, and its messages tell the present state.
        """
        found: dict[frozenset[str], LinkState] = {}
        for (source, target), link in self._links.items():
            large, small = link.large_us_per_byte, link.small_us
            age_s = now_s - max(large.last_s, small.last_s)
            if age_s > SILENT_S:
                continue
            state = LinkState(
                source=source,
                target=target,
                gbps=8e-3 / large.mean if large.runs and large.mean > 0 else None,
                rtt_us=2 * small.mean if small.runs else None,
                age_s=age_s,
            )
            ends = frozenset((source, target))
            if ends not in found or (state.gbps or math.inf) < (found[ends].gbps or math.inf):
                found[ends] = state
        return list(found.values())

    def _requests(self, now_s: float) -> Requests | None:
        recent = [one for one in self._answers if one.start_s + 1e-6 * one.us > now_s - 60]
        if not recent:
            return None
        latencies = sorted(one.us for one in recent)
        span_s = max(now_s - min(one.start_s for one in recent), 1e-6)

        def exceeded_by(share: float) -> float:
            return latencies[min(len(latencies) - 1, int((1 - share) * len(latencies)))]

        return Requests(
            rate_hz=len(recent) / span_s,
            in_flight=1e-6 * sum(latencies) / span_s,
            p50_us=exceeded_by(0.5),
            p95_us=exceeded_by(0.05),
            p99_us=exceeded_by(0.01),
        )


@dataclass(frozen=True, kw_only=True)
class Replacement:
    """Another distribution, compared with the current one under the same statistics."""

    distribution: Distribution
    """The other distribution."""
    gain: float
    """Predicted relative gain in the target, for instance 0.1 for 10 %."""
    sigma: float
    """Standard deviation of the gain."""

    @property
    def is_clear(self) -> bool:
        """True if the gain is large and certain enough for a change."""
        return self.gain > max(LEAST_GAIN, SIGMAS * self.sigma)


class Replanning:
    """Decides to change the distribution: when the gain is large, certain and lasting.

    Parameters
    ----------
    propose
        Plans for a snapshot; None if the current distribution is the best.
    """

    def __init__(self, propose: Callable[[Statistics], Replacement | None]) -> None:
        self._propose = propose
        self._in_a_row = 0

    def consider(self, statistics: Statistics) -> Distribution | None:
        """Return a better distribution after enough snapshots in a row; None otherwise."""
        found = self._propose(statistics)
        if found is None or not found.is_clear:
            self._in_a_row = 0
            return None
        self._in_a_row += 1
        if self._in_a_row < SNAPSHOTS:
            return None
        self._in_a_row = 0
        return found.distribution

    def confirms(self, statistics: Statistics) -> bool:
        """True if a change still pays, after the other distribution has been tried."""
        found = self._propose(statistics)
        return found is not None and found.is_clear
