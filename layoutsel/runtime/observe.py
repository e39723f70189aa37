"""A compiled model at work: how long every step takes within it, and what watching costs."""

from __future__ import annotations

import statistics
import time
from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np

from layoutsel.planning.residuals import Ran, TracedRuns
from layoutsel.runtime.compiled import CompiledModel
from layoutsel.runtime.trace import Event, Tracer

RUNS = 20
"""Runs of each kind, …"""
FEWEST_RUNS = 5
BUDGET_S = 2.0
"""… but no more than fit into this, and :data:`FEWEST_RUNS` at least, …"""
PATIENCE = 5.0
"""… unless they take so many times as long: then one of each kind does."""


def observe(
    model: CompiledModel, inputs: Sequence[np.ndarray], budget_s: float = BUDGET_S
) -> TracedRuns:
    """Run `model` on checked `inputs` with tracing and without, in turns; each after a run to warm up.

    No run begins after `budget_s` times :data:`PATIENCE`, beyond the first four.
    """
    tracer, call = Tracer(model, inputs), model.timed_call(inputs)
    whole_us: list[float] = []
    traced_us: list[float] = []
    events: list[Event] = []
    started = time.monotonic()
    while _goes_on(len(whole_us), (time.monotonic() - started) / budget_s):
        call()
        start = time.perf_counter()
        call()
        whole_us.append(1e6 * (time.perf_counter() - start))
        found, us = tracer.run(len(traced_us))
        events += found
        traced_us.append(us)
    return TracedRuns(
        runs=len(whole_us),
        whole_us=statistics.median(whole_us),
        traced_us=statistics.median(traced_us),
        subgraphs=_times(event for event in events if event.kind == "subgraph"),
        transforms=_times(event for event in events if event.kind == "transform"),
        merged=_merged(events),
    )


def _goes_on(runs: int, spent: float) -> bool:
    """Run again after so many `runs`, for which so many times the budget were `spent`."""
    return runs == 0 or (spent < PATIENCE and runs < (FEWEST_RUNS if spent >= 1 else RUNS))


def _times(events: Iterable[Event]) -> dict[str, Ran]:
    sums: dict[str, dict[int, float]] = {}
    steps: Counter[str] = Counter()
    for event in events:
        runs = sums.setdefault(event.name, {})
        runs[event.run] = runs.get(event.run, 0.0) + event.duration_us
        steps[event.name] += 1
    return {
        name: _ran(list(times_us.values()), steps[name] // len(times_us))
        for name, times_us in sums.items()
    }


def _ran(times_us: list[float], count: int) -> Ran:
    if len(times_us) == 1:
        return Ran(us=times_us[0], spread_us=0.0, count=count)
    lower, median, upper = statistics.quantiles(times_us, n=4, method="inclusive")
    return Ran(us=median, spread_us=(upper - lower) / 2, count=count)


def _merged(events: Iterable[Event]) -> frozenset[str]:
    """Sub-graphs that shared one call of one run with others."""
    members: dict[tuple[int, int], set[str]] = {}
    for event in events:
        if event.kind == "subgraph":
            members.setdefault((event.run, event.call), set()).add(event.name)
    return frozenset(name for names in members.values() if len(names) > 1 for name in names)
