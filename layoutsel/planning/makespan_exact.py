"""Exact search for the shortest schedule of a small problem: decisions and order of calls.

Partial schedules grow by one call at a time, all of one length before the next. Three rules drop
most of them:

- *dominance*: another schedule of the same calls leaves the same results, and none of them later
  (Held and Karp, "A dynamic programming approach to sequencing problems", 1962);
- *bounds*: no continuation is shorter than the best known schedule;
- *width*: only the most promising ones of each length are kept (beam search). The lowest bound of
  those dropped by this rule then limits what is proven.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

from layoutsel.planning.partial_schedules import Key, PartialSchedule, PartialSchedules

_SAME_US = 1e-6
"""Difference of equal makespans, microseconds."""
MOST_PARTIAL = 100_000
"""Default of the maximum number of partial schedules that a search makes.

The count ends the search, not the clock unless the machine is slow, so that equal problems get
equal plans.
"""


@dataclass(frozen=True)
class Search:
    """Result of a search."""

    best: PartialSchedule | None
    """Shortest schedule of all calls; None if none is shorter than the known one."""
    us: float
    """Makespan of the shortest schedule, microseconds."""
    bound_us: float
    """Lower bound on all schedules, microseconds."""


@dataclass
class _Level:
    """Partial schedules of one length, without dominated ones."""

    by_key: dict[Key, list[tuple[float, tuple[float, ...], PartialSchedule]]]

    def add(
        self, key: Key, bound_us: float, times_us: tuple[float, ...], one: PartialSchedule
    ) -> None:
        others = self.by_key.setdefault(key, [])
        if any(_no_later(other[1], times_us) for other in others):
            return
        others[:] = [other for other in others if not _no_later(times_us, other[1])]
        others.append((bound_us, times_us, one))

    def narrowest(self, width: int) -> tuple[list[tuple[float, PartialSchedule]], float]:
        """Return the `width` schedules with the lowest bounds, and the lowest bound of others."""
        found = [(bound_us, one) for some in self.by_key.values() for bound_us, _, one in some]
        found.sort(key=lambda pair: pair[0])
        dropped_us = found[width][0] if len(found) > width else math.inf
        return found[:width], dropped_us


def _no_later(one: Sequence[float], other: Sequence[float]) -> bool:
    return all(us <= than for us, than in zip(one, other, strict=True))


def shortest(
    schedules: PartialSchedules,
    known_us: float,
    *,
    width: int,
    most: int = MOST_PARTIAL,
    deadline: float = math.inf,
) -> Search:
    """Search for a schedule that is shorter than `known_us`, and prove a lower bound.

    Parameters
    ----------
    schedules
        Partial schedules of the problem.
    known_us
        Makespan of the best known schedule, microseconds.
    width
        Maximum number of partial schedules of each length.
    most
        Maximum number of partial schedules, after which the search ends with a bound alone.
    deadline
        Time of :func:`time.monotonic` at which the search ends with a bound alone.
    """
    empty = schedules.empty()
    proven_us, made = math.inf, 0
    level = [(schedules.bound_us(empty, math.inf), empty)]
    for _ in range(schedules.count):
        found = _Level({})
        for bound_us, one in level:
            if made > most or time.monotonic() >= deadline:
                return Search(None, known_us, min(proven_us, level[0][0], known_us))
            for longer in schedules.continued(one):
                made += 1
                # A bound on a schedule holds for its continuations.
                longer_us = max(bound_us, schedules.bound_us(longer, known_us))
                if longer_us < known_us - _SAME_US:
                    found.add(schedules.key(longer), longer_us, schedules.times_us(longer), longer)
        level, dropped_us = found.narrowest(width)
        proven_us = min(proven_us, dropped_us)
    best, best_us = None, known_us
    for _, one in level:
        us = schedules.makespan_us(one)
        if us < best_us - _SAME_US:
            best, best_us = one, us
    return Search(best, best_us, min(best_us, proven_us))
