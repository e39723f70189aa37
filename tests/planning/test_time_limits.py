"""Planning that has far too little time: the plan is legal, its bound holds, and a warning says so."""

import logging
import random
import time
from dataclasses import replace

import pytest
from problems import graph_problem, random_parents

from layoutsel.planning.objectives import decide, objective_of, state
from layoutsel.planning.solve import solve
from layoutsel.planning.values import MAKESPAN, SUM

LAYOUTS = ("NCHW", "NHWC", "NCHW16c", "NCHW8c")
ALLOWED_S = 20
"""What it may take longer than its limit on a busy machine; without a limit it takes minutes."""


def wide(objective: str):
    """A network that no solver finishes within these limits."""
    rng = random.Random(7)
    parents = random_parents(300, rng, reach=300, most=2)
    problem = graph_problem(parents, rng, layouts=LAYOUTS, units=("cpu", "opencl"))
    return replace(problem, objective=objective)


@pytest.mark.parametrize("limit_s", [1e-3, 1.0])
@pytest.mark.parametrize(
    ("objective", "said"), [(SUM, "fell back to"), (MAKESPAN, "ended at its time limit of")]
)
def test_the_plan_is_legal_and_bounded(objective, said, limit_s, caplog):
    problem = wide(objective)
    started = time.monotonic()
    with caplog.at_level(logging.WARNING):
        solution = decide(problem, time_limit_s=limit_s).solution
    assert time.monotonic() - started < limit_s + ALLOWED_S
    values, _ = state(problem, solution.decisions, {**solution.bounds, SUM: solution.bound_us})
    assert problem.offers(solution.decisions)
    for value in values.values():
        assert 0 < value.bound <= value.value
    assert values[SUM].gap > 0
    assert said in caplog.text


def test_bounds_within_little_time_hold_for_plans_of_more():
    problem = wide(SUM)
    hurried, better = (solve(problem, time_limit_s=limit_s) for limit_s in (1e-3, 5.0))
    assert hurried.bound_us <= better.cost_us
    assert better.bound_us <= better.cost_us <= hurried.cost_us


def test_an_easy_network_is_planned_exactly_all_the_same(caplog):
    rng = random.Random(1)
    problem = graph_problem(random_parents(20, rng, reach=3), rng)
    with caplog.at_level(logging.WARNING):
        solution = decide(problem, time_limit_s=objective_of(SUM).time_limit_s / 10).solution
    assert solution.gap == 0
    assert not caplog.records
