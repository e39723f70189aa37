"""Prices within plans: what was seen stands, what is alike stands in, the rest is scaled."""

from __future__ import annotations

import random

import pytest

from layoutsel.planning.problem import PlanningProblem
from layoutsel.planning.refine import IN_PLAN, TimedSubgraphs
from layoutsel.planning.residuals import SubgraphResidual
from layoutsel.planning.solve import solve
from tests.planning.problems import graph_problem
from tvm_passes.decision import Decision

KEYS = {"s0": "a", "s1": "b", "s2": "a"}
CPU, OTHER = Decision.parse("cpu:NHWC"), Decision.parse("cpu:NCHW")


@pytest.fixture
def problem() -> PlanningProblem:
    return graph_problem([[-1], [0], [1]], random.Random(1))


def ran(id_: str, decision: Decision, us: float | None) -> SubgraphResidual:
    return SubgraphResidual(
        id=id_,
        decision=decision,
        predicted_us=0.0,
        spread_us=0.0,
        source="learned",
        in_plan_us=us,
        in_plan_spread_us=0.0,
        merged=False,
    )


def test_what_was_seen_stands_and_what_is_alike_stands_in(problem):
    seen = TimedSubgraphs(problem, KEYS)
    seen.add([ran("s0", CPU, 7.0), ran("s1", CPU, 9.0)])
    seen.add([ran("s0", CPU, 5.0), ran("s1", CPU, None)])
    priced = seen.priced()
    assert [priced.by_id[id_].option(CPU).cost_us for id_ in KEYS] == [5.0, 9.0, 5.0]
    assert priced.by_id["s2"].option(CPU).source == IN_PLAN


def test_what_took_no_time_of_its_own_stands_in_for_nothing(problem):
    seen = TimedSubgraphs(problem, KEYS)
    seen.add([ran("s0", CPU, 0.0)])
    priced = seen.priced()
    assert priced.by_id["s0"].option(CPU).cost_us == 0.0
    for decision in (CPU, OTHER):
        unseen = problem.by_id["s2"].option(decision).cost_us
        assert priced.by_id["s2"].option(decision).cost_us == unseen


def test_the_rest_is_scaled_by_what_its_unit_took(problem):
    seen = TimedSubgraphs(problem, KEYS)
    predicted = problem.by_id["s1"].option(CPU).cost_us
    seen.add([ran("s1", CPU, 3 * predicted)])
    priced = seen.priced()
    for id_ in ("s0", "s2"):
        before = problem.by_id[id_]
        assert priced.by_id[id_].option(OTHER).cost_us == pytest.approx(
            3 * before.option(OTHER).cost_us
        )
        unseen = Decision.parse("onednn:NHWC")
        assert priced.by_id[id_].option(unseen).cost_us == before.option(unseen).cost_us


def test_the_next_plan_avoids_what_turned_out_slow(problem):
    best = solve(problem).decisions
    seen = TimedSubgraphs(problem, dict.fromkeys(KEYS, "") | {id_: id_ for id_ in KEYS})
    for id_, decision in best.items():
        cost = problem.by_id[id_].option(decision).cost_us
        seen.add([ran(id_, decision, 100 * cost if id_ == "s1" else cost)])
    assert solve(seen.priced()).decisions["s1"] != best["s1"]
