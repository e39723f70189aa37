"""Interleaved timing of functions in one process."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Mapping

from layoutsel.planning.plan import Measured

WARM_UP_RUNS = 2
"""Untimed runs before each turn."""


def race(
    calls: Mapping[str, Callable[[], object]],
    *,
    rounds: int = 11,
    turn_s: float = 0.08,
    drop_after: int | None = None,
    limit_s: float = math.inf,
) -> dict[str, Measured]:
    """Time functions in alternation, so that disturbances affect all alike.

    Parameters
    ----------
    calls
        Functions by name.
    rounds
        Number of turns of each function.
    turn_s
        Duration of one turn without warm-up, seconds; a slow function runs once per turn.
    drop_after
        Number of turns after which functions are dropped whose lower quartile exceeds the best
        median; None to keep all.
    limit_s
        Time limit, seconds; after it, no turn begins except the first of each function.
    """
    deadline = time.monotonic() + limit_s
    runs = {}
    for name, call in calls.items():
        call()
        start = time.perf_counter()
        call()
        runs[name] = max(1, min(500, int(turn_s / (time.perf_counter() - start))))
    times: dict[str, list[float]] = {name: [] for name in calls}
    racing = list(calls)
    for round_ in range(rounds):
        if round_ and time.monotonic() >= deadline:
            break
        if drop_after is not None and round_ >= drop_after:
            racing = _in_the_running(times, racing)
        for name in racing if round_ % 2 else reversed(racing):
            if round_ and time.monotonic() >= deadline:
                break
            for _ in range(WARM_UP_RUNS):
                calls[name]()
            for _ in range(runs[name]):
                start = time.perf_counter()
                calls[name]()
                times[name].append(1e6 * (time.perf_counter() - start))
    return {name: _summary(values) for name, values in times.items()}


def _in_the_running(times: Mapping[str, list[float]], racing: list[str]) -> list[str]:
    best = min(statistics.median(times[name]) for name in racing)
    return [name for name in racing if statistics.quantiles(times[name], n=4)[0] <= best]


def _summary(times_us: list[float]) -> Measured:
    quartiles = statistics.quantiles(times_us, n=4) if len(times_us) > 1 else [0.0] * 3
    return Measured(
        median_us=statistics.median(times_us),
        spread_us=(quartiles[2] - quartiles[0]) / 2,
        runs=len(times_us),
    )
