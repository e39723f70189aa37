"""Exact search for the shortest schedule, against all orders of calls of all plans."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import replace

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from layoutsel.planning.calls import Calls
from layoutsel.planning.makespan import in_order, schedule
from layoutsel.planning.makespan_exact import shortest
from layoutsel.planning.parallel import solve_parallel
from layoutsel.planning.partial_schedules import PartialSchedules
from layoutsel.planning.problem import PlanningProblem
from layoutsel.planning.solve import solve
from tests.planning.problems import small_problems
from tests.planning.test_against_cp_sat import makespan_problem
from tests.planning.test_resources import Network
from tests.tiers import examples, tiered
from tvm_passes.decision import Decision, SubgraphId

SLACK_US = 1e-5
MOST_PLANS = 400
"""Number of plans of a problem whose orders brute force can try."""


def every_plan(problem: PlanningProblem) -> Iterator[dict[SubgraphId, Decision]]:
    for options in itertools.product(*(node.options for node in problem.nodes)):
        yield {node.id: o.decision for node, o in zip(problem.nodes, options, strict=True)}


def every_order(problem: PlanningProblem) -> list[tuple[SubgraphId, ...]]:
    """All orders in which producers come before their consumers."""
    needs = {node.id: set(Calls(problem).makers(node.id)) for node in problem.nodes}

    def longer(order: tuple[SubgraphId, ...]) -> Iterator[tuple[SubgraphId, ...]]:
        if len(order) == len(needs):
            yield order
        for id_ in needs.keys() - set(order):
            if needs[id_] <= set(order):
                yield from longer((*order, id_))

    return list(longer(()))


def shortest_us(problem: PlanningProblem, decisions: Mapping[SubgraphId, Decision]) -> float:
    """Makespan of a plan in its best order, by trying all."""
    calls = Calls(problem).of(decisions)
    return min(in_order(calls, order).makespan_us for order in every_order(problem))


@st.composite
def problems(draw: st.DrawFn) -> PlanningProblem:
    """Problems of few plans, of one host or of a network."""
    problem = draw(small_problems())
    assume(math.prod(len(node.options) for node in problem.nodes) <= MOST_PLANS)
    latency_us = draw(st.sampled_from([None, 0.0, 7.0]))
    return problem if latency_us is None else replace(problem, resources=Network(latency_us))


@settings(max_examples=examples(60), deadline=None)
@given(problem=problems())
def test_no_order_of_any_plan_is_shorter(problem):
    best_us = min(shortest_us(problem, decisions) for decisions in every_plan(problem))
    found = solve_parallel(problem, solve(problem).decisions)
    assert found.schedule.makespan_us == pytest.approx(best_us)
    # A search that meets its limit of partial schedules proves less; few problems need that many.
    assert found.bound_us <= best_us * (1 + 1e-9)
    assert schedule(problem, found.decisions) == found.schedule


@settings(max_examples=examples(60), deadline=None)
@given(problem=problems(), seed=st.integers(0, 1000))
def test_a_plan_gets_its_best_order(problem, seed):
    plans = list(every_plan(problem))
    decisions = plans[seed % len(plans)]
    best_us = shortest_us(problem, decisions)
    assert schedule(problem, decisions).makespan_us == pytest.approx(best_us)


@settings(max_examples=examples(60), deadline=None)
@given(problem=problems(), width=st.integers(1, 4))
def test_a_narrow_search_proves_no_more_than_holds(problem, width):
    best_us = min(shortest_us(problem, decisions) for decisions in every_plan(problem))
    candidates = {node.id: node.options for node in problem.nodes}
    schedules = PartialSchedules(problem, Calls(problem), candidates)
    found = shortest(schedules, math.inf, width=width)
    assert found.bound_us <= best_us + SLACK_US
    assert found.best is not None
    decisions, order = schedules.plan(found.best)
    made = in_order(Calls(problem).of(decisions), order)
    assert made.makespan_us == pytest.approx(found.us)


@pytest.mark.parametrize("seed", tiered(range(200), (5, 27, 28, 35, 64, 130, 157, 180)))
def test_small_problems_are_solved_exactly(seed):
    """Descents and annealing alone end up to 17 % above the best schedule of the daily ones."""
    problem = makespan_problem(seed)
    found = solve_parallel(problem, solve(problem).decisions, time_limit_s=240.0)
    assert found.bound_us == pytest.approx(found.schedule.makespan_us)


def test_a_search_without_time_has_a_bound_alone():
    problem = makespan_problem(35)
    candidates = {node.id: node.options for node in problem.nodes}
    schedules = PartialSchedules(problem, Calls(problem), candidates)
    best = shortest(schedules, math.inf, width=1000)
    cut = shortest(schedules, math.inf, width=1000, deadline=0.0)
    assert cut.best is None
    assert 0 < cut.bound_us <= best.us + SLACK_US
