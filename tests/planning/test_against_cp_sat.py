"""Exact solvers against CP-SAT, on problems that brute force cannot do: some 10**9 plans and more."""

from __future__ import annotations

import math
import random
from dataclasses import replace

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from layoutsel.core.precision import REL_ERROR
from layoutsel.planning.makespan import schedule
from layoutsel.planning.makespan_bound import relaxed
from layoutsel.planning.objectives import decide, objective_of
from layoutsel.planning.parallel import solve_parallel
from layoutsel.planning.problem import PlanningProblem
from layoutsel.planning.solve import solve
from layoutsel.planning.trade_off import squared_error
from layoutsel.planning.values import MAKESPAN, SUM, WITHIN_ERROR
from tests.planning.problems import (
    chain_of_blocks,
    graph_problem,
    mixed,
    random_parents,
    residual_chain,
    small_problems,
)
from tests.planning.test_trade_off import with_precisions

cp_sat = pytest.importorskip(
    "tests.planning.cp_sat", reason="no ortools: pip install ortools, or the extra 'dev'"
)

WITHOUT_SHRINKING = (Phase.explicit, Phase.reuse, Phase.generate)
"""Each example takes seconds."""
ROUNDING_US = 1e-3
"""Difference of sums that rounding to CP-SAT's integers explains."""


@st.composite
def large_problems(draw: st.DrawFn, most: int = 24) -> PlanningProblem:
    """Up to `most` sub-graphs with six candidates each, some with several outputs and mixed layouts."""
    rng = random.Random(draw(st.integers(0, 2**32)))
    count = draw(st.integers(12, most))
    parents = random_parents(count, rng, reach=draw(st.integers(2, 6)))
    layouts = ("NCHW", "NHWC", "NCHW16c")
    units = draw(st.sampled_from([("cpu", "onednn"), ("cpu", "opencl")]))
    problem = graph_problem(parents, rng, layouts=layouts, units=units, scale=5.0)
    return mixed(problem, rng, layouts, 5.0) if draw(st.booleans()) else problem


def plans_of(problem: PlanningProblem) -> int:
    return math.prod(len(node.options) for node in problem.nodes)


@settings(max_examples=15, deadline=None, phases=WITHOUT_SHRINKING)
@given(large_problems())
def test_the_least_sum_is_what_cp_sat_finds(problem):
    assert plans_of(problem) > 1e9
    best = cp_sat.least_sum(problem)
    assert best.is_proven
    for solver in objective_of(SUM).solvers:
        found = decide(problem, solver=solver, time_limit_s=20.0).solution
        assert found.bound_us <= best.us + ROUNDING_US
        assert found.cost_us >= best.us - ROUNDING_US
        if solver != "dual":
            assert found.cost_us == pytest.approx(best.us, abs=ROUNDING_US)
            assert found.gap == pytest.approx(0.0, abs=1e-5)


@pytest.mark.parametrize("parents", [residual_chain(12), chain_of_blocks(4, 4, 3)])
def test_networks_of_real_shapes_are_planned_as_by_cp_sat(parents):
    problem = graph_problem(parents, random.Random(len(parents)), scale=5.0)
    best = cp_sat.least_sum(problem, time_limit_s=60.0)
    assert best.is_proven
    assert solve(problem).cost_us == pytest.approx(best.us, abs=ROUNDING_US)


@settings(max_examples=10, deadline=None, phases=WITHOUT_SHRINKING)
@given(seed=st.integers(0, 2**32), limit=st.sampled_from([1e-6, 1e-5, 2.5e-3, 4.5e-3]))
def test_bounds_within_an_error_budget_hold_for_the_plan_of_cp_sat(seed, limit):
    rng = random.Random(seed)
    parents = random_parents(12, rng, reach=3, most=2)
    problem = graph_problem(parents, rng, layouts=("NCHW", "NHWC"), units=("cpu",), scale=5.0)
    problem = replace(
        with_precisions(problem, rng), objective=WITHIN_ERROR, limits={REL_ERROR: limit}
    )
    best = cp_sat.least_sum(problem, rel_error=limit)
    assert best.is_proven
    assert math.sqrt(squared_error(best.decisions)) <= limit * (1 + 1e-6)
    answer = decide(problem)
    found = answer.solution
    assert found.bounds[WITHIN_ERROR] <= best.us + ROUNDING_US
    assert math.sqrt(squared_error(found.decisions)) <= limit
    assert found.cost_us >= best.us - ROUNDING_US
    # The trade-off holds the corners of the hull: the chosen one is exact for its own error.
    corner = cp_sat.least_sum(problem, rel_error=math.sqrt(squared_error(found.decisions)))
    assert found.cost_us == pytest.approx(corner.us, abs=ROUNDING_US)


def two_memories(seed: int, count: int) -> PlanningProblem:
    rng = random.Random(seed)
    parents = random_parents(count, rng, reach=4, most=2)
    layouts = ("NCHW", "NHWC")[: rng.choice((1, 2))]
    problem = graph_problem(parents, rng, layouts=layouts, units=("cpu", "opencl"), scale=5.0)
    return replace(problem, objective=MAKESPAN)


@settings(max_examples=10, deadline=None, phases=WITHOUT_SHRINKING)
@given(small_problems())
def test_no_schedule_is_shorter_than_that_of_cp_sat(problem):
    """Where brute force is possible as well: neither a bound nor a schedule contradicts CP-SAT."""
    best = cp_sat.least_makespan(problem)
    assert relaxed(problem).bound_us <= best.us + ROUNDING_US
    found = solve_parallel(problem, solve(problem).decisions, time_limit_s=5.0)
    assert found.schedule.makespan_us >= best.bound_us - ROUNDING_US


@settings(max_examples=8, deadline=None, phases=WITHOUT_SHRINKING)
@given(seed=st.integers(0, 2**32), count=st.integers(10, 16))
def test_bound_and_schedule_of_larger_problems_lie_around_the_optimum_of_cp_sat(seed, count):
    problem = two_memories(seed, count)
    best = cp_sat.least_makespan(problem)
    found = decide(problem, time_limit_s=10.0).solution
    us = schedule(problem, found.decisions).makespan_us
    assert found.bounds[MAKESPAN] <= best.us + ROUNDING_US
    assert us >= best.bound_us - ROUNDING_US
    # List schedules bring inputs directly before a call, which these need not: a few per cent.
    assert us <= 1.25 * best.us


@pytest.mark.parametrize("seed", range(3))
def test_the_search_comes_near_to_the_list_schedule_of_cp_sats_decisions(seed):
    problem = two_memories(seed, 14)
    best = cp_sat.least_makespan(problem)
    found = decide(problem, time_limit_s=10.0).solution
    theirs_us = schedule(problem, best.decisions).makespan_us
    assert schedule(problem, found.decisions).makespan_us <= 1.05 * theirs_us


def test_the_oracle_agrees_with_the_definition_of_costs():
    """The oracle's own optimum, priced by the problem itself."""
    problem = graph_problem(residual_chain(6), random.Random(1), scale=5.0)
    best = cp_sat.least_sum(problem)
    assert problem.cost(best.decisions).total_us == pytest.approx(best.us, abs=ROUNDING_US)
