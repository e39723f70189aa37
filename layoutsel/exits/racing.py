"""Races: arrangements of one network, timed in alternation on the observed patterns."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Mapping
from functools import partial
from typing import NamedTuple, TypeVar

import numpy as np

from layoutsel.exits.executor import ExitModel
from layoutsel.exits.exit_answer import ExitAnswer
from layoutsel.exits.exit_plan import ExitPlan
from layoutsel.exits.latencies import OBJECTIVES
from layoutsel.exits.patterns import pattern_table
from layoutsel.runtime.samples import random_inputs

_PATTERNS = 15
"""Maximum number of patterns that a race measures: all of those of four exits."""
_ROUNDS = 41
"""Number of rounds of a race."""
Name = TypeVar("Name", bound=Hashable)
"""Name of a contender."""


class TimedPlan(NamedTuple):
    """Measured objective of an arrangement."""

    us: float
    """Objective of the median times of all patterns, microseconds."""
    p95_us: float
    """Objective that 5 % of the rounds exceed, microseconds."""


def race(models: Mapping[str, ExitModel], plan: ExitPlan, limit_s: float) -> dict[str, TimedPlan]:
    """Time models in alternation, and return the objective of each by name.

    Exits are sure as in the observed patterns, whatever the inputs are.

    Parameters
    ----------
    models
        Models of one network.
    plan
        Observed patterns and objective.
    limit_s
        Time limit, seconds; one round is always completed.
    """
    inputs = random_inputs(next(iter(models.values())).compiled.inputs)
    runs = {name: partial(model.forced, inputs=inputs) for name, model in models.items()}
    return timed_in_turns(runs, plan, limit_s)


def timed_in_turns(
    runs: Mapping[Name, Callable[[tuple[int, ...]], ExitAnswer]], plan: ExitPlan, limit_s: float
) -> dict[Name, TimedPlan]:
    """Time answers in alternation, and return the objective of each by name.

    In every round, each of them answers all patterns once, after a request that is not timed. A
    pattern counts as often as it was observed. Samples of rare patterns beyond the limit count as
    those of which no exit is sure.

    Parameters
    ----------
    runs
        Functions that answer a request as if exactly the given exits were sure.
    plan
        Observed patterns and objective.
    limit_s
        Time limit, seconds; one round is always completed.
    """
    sure, samples = pattern_table(plan.patterns[:_PATTERNS], len(plan.exits))
    samples[-1] += sum(one.samples for one in plan.patterns[_PATTERNS:])
    patterns = [tuple(map(int, np.flatnonzero(row[:-1]))) for row in sure]
    times: dict[Name, list[list[float]]] = {name: [] for name in runs}
    end_s = time.monotonic() + limit_s
    for number in range(_ROUNDS):
        if number and time.monotonic() > end_s:
            break
        for name, run in runs.items():
            run(())  # wakes threads and fills caches, which requests in a row find so
            times[name].append([run(one).us for one in patterns])
    value = OBJECTIVES[plan.objective]
    return {
        name: TimedPlan(
            us=value(np.median(rows, axis=0), samples),
            p95_us=float(np.quantile([value(np.array(row), samples) for row in rows], 0.95)),
        )
        for name, rows in times.items()
    }
