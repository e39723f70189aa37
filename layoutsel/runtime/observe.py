"""Time of each step within whole runs of a compiled model, with the overhead of tracing."""

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
"""Number of traced and of untraced runs, unless they exceed the time budget."""
FEWEST_RUNS = 5
"""Minimum number of runs of each kind, unless they exceed the patience."""
BUDGET_S = 2.0
"""Default time budget, seconds."""
PATIENCE = 5.0
"""Multiple of the time budget after which no run begins, except the first of each kind."""


def observe(
    model: CompiledModel, inputs: Sequence[np.ndarray], budget_s: float = BUDGET_S
) -> TracedRuns:
    """Run a model in alternation with and without tracing, each after a warm-up run.

    Parameters
    ----------
    model
        Model to run.
    inputs
        Checked inputs.
    budget_s
        Time budget, seconds; after :data:`PATIENCE` times as long, no run begins except the first
        four.
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
    """True to run again after `runs` runs, in which `spent` time budgets have passed."""
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
    """Sub-graphs that shared a call of the virtual machine with others."""
    members: dict[tuple[int, int], set[str]] = {}
    for event in events:
        if event.kind == "subgraph":
            members.setdefault((event.run, event.call), set()).add(event.name)
    return frozenset(name for names in members.values() if len(names) > 1 for name in names)
