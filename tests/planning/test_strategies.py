"""Joint and score strategies, and the alternatives that are measured against the plan."""

import random
from dataclasses import replace

import pytest
from hypothesis import given, settings
from tiers import examples

from layoutsel.planning.alternatives import single_plans, top_plans, unit_plans
from layoutsel.planning.problem import ProblemError
from layoutsel.planning.strategies import STRATEGIES, choose, unit_by_score
from tests.planning.problems import (
    UNITS,
    brute_force,
    chain_of_blocks,
    graph_problem,
    residual_chain,
    small_problems,
)
from tvm_passes.decision import Decision


@settings(max_examples=examples(30), deadline=None)
@given(small_problems())
def test_score_takes_the_cheapest_unit_and_the_best_layouts_for_it(problem):
    solution = choose(problem, strategy="score")
    units = {node.id: unit_by_score(node) for node in problem.nodes}
    assert {i: d.unit for i, d in solution.decisions.items()} == units
    narrowed = problem.restrict(lambda node, option: option.decision.unit == units[node.id])
    assert solution.cost_us == pytest.approx(brute_force(narrowed))
    assert solution.bound_us == pytest.approx(brute_force(problem))
    joint = choose(problem, strategy="joint")
    assert joint.cost_us == pytest.approx(brute_force(problem))


def test_score_prefers_the_score_over_the_cost():
    problem = graph_problem([[-1]], random.Random(0))
    (node,) = problem.nodes
    scored = tuple(
        replace(option, score_us={"cpu": 1.0, "onednn": 2.0}[option.decision.unit])
        for option in node.options
    )
    assert unit_by_score(replace(node, options=scored)) == "cpu"


def test_unknown_strategy():
    problem = graph_problem([[-1]], random.Random(0))
    with pytest.raises(ProblemError, match="unknown strategy 'best'; expected one of joint, score"):
        choose(problem, strategy="best")
    assert set(STRATEGIES) == {"joint", "score"}


def test_single_plans_fall_back_to_plain_then_to_any():
    problem = graph_problem(residual_chain(2), random.Random(5))
    no_packed = problem.restrict(
        lambda node, o: not (node.id == "s1" and o.decision.layout == "NCHW16c")
    )
    no_onednn = no_packed.restrict(lambda node, o: node.id != "s2" or o.decision.unit == "cpu")
    plans = {plan.name: plan for plan in single_plans(no_onednn)}
    assert len(plans) == 6
    packed = plans["onednn:NCHW16c everywhere"].decisions
    assert packed["s0"] == Decision(unit="onednn", layout="NCHW16c")
    assert packed["s1"] == Decision(unit="onednn", layout="NCHW")
    cheapest = min(no_onednn.by_id["s2"].options, key=lambda o: o.cost_us)
    assert packed["s2"] == cheapest.decision


def test_unit_plans_leave_a_unit_only_where_it_cannot():
    problem = graph_problem(residual_chain(2), random.Random(5))
    problem = problem.restrict(lambda node, o: node.id != "s2" or o.decision.unit == "cpu")
    plans = {plan.name: plan for plan in unit_plans(problem)}
    assert set(plans) == {"only cpu", "only onednn"}
    for unit in ("cpu", "onednn"):
        chosen = plans[f"only {unit}"].decisions
        assert {d.unit for id_, d in chosen.items() if id_ != "s2"} == {unit}
        assert chosen["s2"].unit == "cpu"
    costs = [plan.cost_us for plan in unit_plans(problem)]
    assert costs == sorted(costs)


@pytest.mark.parametrize("k", [1, 3, 8, 30])
def test_top_plans_are_distinct_and_best_first(k):
    problem = graph_problem(chain_of_blocks(3, 4, 2), random.Random(k))
    plans = top_plans(problem, k)
    assert len(plans) == k
    assert len({tuple(sorted(p.decisions.items())) for p in plans}) == k
    costs = [plan.cost_us for plan in plans]
    assert costs == sorted(costs)
    assert plans[0].cost_us == pytest.approx(choose(problem).cost_us)
    assert all(p.cost_us == problem.cost(p.decisions).total_us for p in plans)


def test_top_plans_ends_where_plans_end():
    problem = graph_problem([[-1]], random.Random(0), layouts=("NCHW",), units=UNITS)
    assert len(top_plans(problem, 10)) == 2
    with pytest.raises(ProblemError, match="cannot give 0 plans"):
        top_plans(problem, 0)


def test_beliefs_come_before_small_changes():
    problem = graph_problem(residual_chain(4), random.Random(1))
    names = {plan.name for plan in top_plans(problem, 4)}
    assert "joint" in names
    assert not any(" for s" in name for name in names)
