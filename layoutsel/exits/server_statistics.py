"""Figures of a server: throughput, latencies, and the exits that answered."""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from layoutsel.exits.exit_answer import ExitAnswer
from layoutsel.exits.latencies import OBJECTIVES

_KEPT = 10_000
"""Number of latencies that are kept, the last ones."""
_NEW = 64
"""Number of answers that are counted at once."""


@dataclass(frozen=True, kw_only=True)
class ServerStatistics:
    """Figures of a server since it was made."""

    answered: int
    """Number of answers."""
    at_deadline: int
    """Number of answers that were the best result at the deadline."""
    late: int
    """Number of answers after their deadline, those at the deadline included."""
    missed: int
    """Number of requests without a result at their deadline."""
    failed: int
    """Number of requests that failed for another reason."""
    throughput_hz: float
    """Answers per second between the first and the last one; 0 before the second."""
    latency_us: Mapping[str, float]
    """Latencies of the last 10,000 answers from the arrival on, microseconds, by
    :data:`layoutsel.exits.latencies.OBJECTIVES`; empty before the first."""
    shares: Mapping[str, float]
    """Share of the answers by exit; exits that never answered are left out."""


class ServerRecord:
    """Counts of a server; all methods may be called by several threads."""

    def __init__(self) -> None:
        self._turn = threading.Lock()
        self._counts: Counter[str] = Counter()
        self._exits: Counter[str] = Counter()
        self._latencies_us: deque[float] = deque(maxlen=_KEPT)
        self._first_s = self._last_s = 0.0
        # Appending takes no lock, and a tenth of the time of counting.
        self._new: deque[tuple[float, ExitAnswer, bool]] = deque()

    def answered(self, now_s: float, answer: ExitAnswer, *, is_late: bool) -> None:
        """Count an answer at a time of the performance counter, seconds."""
        self._new.append((now_s, answer, is_late))
        if len(self._new) >= _NEW:
            with self._turn:
                self._count()

    def failed(self, *, is_missed: bool) -> None:
        """Count a request without a result at its deadline, or one that failed otherwise."""
        with self._turn:
            self._counts["missed" if is_missed else "failed"] += 1

    def statistics(self) -> ServerStatistics:
        """Figures so far."""
        with self._turn:
            self._count()
            counts, exits = self._counts.copy(), self._exits.copy()
            times_us = np.array(self._latencies_us)
            between_s = self._last_s - self._first_s
        answered = counts["answered"]
        equal = np.ones(len(times_us))
        return ServerStatistics(
            answered=answered,
            at_deadline=counts["at_deadline"],
            late=counts["late"],
            missed=counts["missed"],
            failed=counts["failed"],
            throughput_hz=(answered - 1) / between_s if between_s > 0 else 0.0,
            latency_us={name: value(times_us, equal) for name, value in OBJECTIVES.items()}
            if answered
            else {},
            shares={name: count / answered for name, count in exits.items()},
        )

    def _count(self) -> None:
        """Take the new answers; the caller has the lock."""
        while self._new:
            now_s, answer, is_late = self._new.popleft()
            self._first_s = self._first_s or now_s
            self._last_s = max(self._last_s, now_s)
            self._counts["answered"] += 1
            self._counts["late"] += is_late
            self._counts["at_deadline"] += answer.at_deadline
            self._exits[answer.exit] += 1
            self._latencies_us.append(answer.us)
