"""Throughput that running distributions attain, against predictions.

Predictions leave out what an engine does beyond its messages. The throughput that a distribution
has attained corrects the prediction of those on the same nodes, so that a mixture of nodes stays
only if it is faster than a single node in fact.
"""

from __future__ import annotations

import math
import threading
import time
from collections import deque

from layoutsel.cluster.events import ClusterEvent, RequestAnswered, SegmentRan

WINDOW_S = 4.0
"""Time over which throughput is measured, seconds."""
_SETTLED_S = 1.0
"""Time at the beginning of an epoch that does not count: requests of the last one still run."""
_WAITING = 0.5
"""Share of the time for which streams wait for answers when nodes are busy all the time."""
_AGE_S = 600.0
"""Age at which an observation has lost 63 % of its weight, seconds; later it is tried again."""


class AttainedRate:
    """Throughput of the current epoch while streams wait for answers; an observer.

    A stream takes new requests as long as there are places. If it waits nevertheless, the nodes
    are busy with as many requests as they can take.
    """

    def __init__(self) -> None:
        self._turn = threading.Lock()
        self._epoch, self._begin_s = -1, 0.0
        self._ends_s: deque[float] = deque()
        self._waits_s: deque[tuple[float, float]] = deque()

    def __call__(self, event: ClusterEvent) -> None:
        """Take an event."""
        with self._turn:
            if isinstance(event, SegmentRan) and event.epoch > self._epoch:
                self._epoch, self._begin_s = event.epoch, event.end_s
            elif isinstance(event, RequestAnswered):
                end_s = event.start_s + 1e-6 * event.us
                self._ends_s.append(end_s)
                while self._ends_s[0] < end_s - WINDOW_S:
                    self._ends_s.popleft()

    def waited(self, start_s: float, end_s: float) -> None:
        """Take a time for which a stream waited for its next answer, monotonic clock."""
        with self._turn:
            self._waits_s.append((start_s, end_s))
            while self._waits_s[0][1] < end_s - WINDOW_S:
                self._waits_s.popleft()

    def hz(self) -> float | None:
        """Throughput; None without streams that wait, or too early in the epoch."""
        now_s = time.monotonic()
        since_s = now_s - WINDOW_S
        with self._turn:
            if self._epoch < 0 or self._begin_s + _SETTLED_S > since_s:
                return None
            waited_s = sum(max(0.0, end - max(start, since_s)) for start, end in self._waits_s)
            if waited_s < _WAITING * WINDOW_S:
                return None
            return sum(end > since_s for end in self._ends_s) / WINDOW_S


class AttainedRatios:
    """Attained over predicted throughput, by the nodes that a distribution uses."""

    def __init__(self) -> None:
        self._found: dict[frozenset[str], tuple[float, float]] = {}

    def add(self, nodes: frozenset[str], attained_hz: float, predicted_hz: float) -> None:
        """Take a measurement; it replaces the last one."""
        if attained_hz > 0 < predicted_hz:
            self._found[nodes] = attained_hz / predicted_hz, time.monotonic()

    def ratio(self, nodes: frozenset[str]) -> float:
        """Ratio of these nodes; 1 for others, and slowly again for those seen long ago."""
        ratio, seen_s = self._found.get(nodes, (1.0, 0.0))
        return float(ratio ** math.exp(-(time.monotonic() - seen_s) / _AGE_S))
