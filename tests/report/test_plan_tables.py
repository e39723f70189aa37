"""Texts about plans: signs of zeros, and extras of a plan that is not the best predicted one."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest

from layoutsel.planning.explain import explain
from layoutsel.planning.new_plan import make_plan
from layoutsel.planning.plan import Measured, Plan
from layoutsel.planning.problem import Option, PlanningProblem, PricedSubgraph
from layoutsel.planning.solve import solve
from layoutsel.report.explain_tables import candidates_table, legend, reason
from layoutsel.report.plan_tables import lead_lines, objective_lines, plan_table, tenths
from tvm_passes.decision import Decision, SubgraphId

COSTS = {"cpu": 100.0, "onednn": 110.0, "amx": 130.0}


def option(unit: str, us: float) -> Option:
    return Option(decision=Decision(unit=unit), cost_us=us, in_layouts=(), out_layouts=("NCHW",))


PROBLEM = PlanningProblem(
    nodes=tuple(
        PricedSubgraph(
            id=SubgraphId(f"s{number}"),
            options=tuple(option(unit, us) for unit, us in COSTS.items()),
            operators=("nn.conv2d",),
        )
        for number in range(2)
    ),
    tensors=(),
)


def plan_of(*units: str) -> Plan:
    decisions = {
        node.id: Decision(unit=unit) for node, unit in zip(PROBLEM.nodes, units, strict=True)
    }
    solution = replace(
        solve(PROBLEM), decisions=decisions, cost_us=PROBLEM.cost(decisions).total_us
    )
    return make_plan(
        PROBLEM,
        solution,
        strategy="joint",
        machine="m",
        versions={},
        explanation=explain(PROBLEM, decisions),
        measured={"plan": Measured(median_us=1.0, spread_us=0.1, runs=3)},
    )


def extras(plan: Plan) -> list[str]:
    table = plan_table(plan)
    return list(table.columns[-1].cells)


def test_extras_of_the_best_plan_are_over_itself():
    plan = plan_of("cpu", "cpu")
    assert extras(plan) == ["+10.0", "+10.0"]
    assert plan_table(plan).caption is None
    assert not list(lead_lines(plan))


def test_extras_of_a_plan_that_won_a_race_are_over_the_best_predicted_one():
    plan = plan_of("onednn", "cpu")
    assert extras(plan) == ["0", "+10.0"]
    assert plan_table(plan).caption == "extra: over the plan with the best prediction"
    (line,) = lead_lines(plan)
    assert line == (
        "another plan has a prediction that is 10 µs better, but this one was measured to be the "
        "fastest"
    )


def whole_plans(plan: Plan, number: int) -> dict[str, str]:
    """Extra of the whole plan by candidate of a sub-graph."""
    table = candidates_table(plan, plan.subgraphs[number])
    names, extras = (list(table.columns[column].cells) for column in (0, 4))
    return dict(zip(names, extras, strict=True))


def test_candidates_of_the_best_plan_are_compared_with_it():
    plan = plan_of("cpu", "cpu")
    assert whole_plans(plan, 0) == {
        "onednn:NCHW": "+10.0 µs",
        "amx:NCHW": "+30.0 µs",
    }
    assert legend(plan).startswith("whole plan: the best plan with that decision, against this one")
    assert reason(plan, plan.subgraphs[0]).startswith("next best onednn:NCHW costs 10 µs more")


def test_candidates_of_a_plan_that_won_a_race_are_compared_with_the_best_predicted_one():
    plan = plan_of("onednn", "cpu")
    assert whole_plans(plan, 0) == {
        "onednn:NCHW (this plan)": "+10.0 µs",
        "cpu:NCHW": "+0.0 µs",
        "amx:NCHW": "+30.0 µs",
    }
    assert "compared with the one that has" in legend(plan)
    assert reason(plan, plan.subgraphs[0]) == (
        "cpu:NCHW has a prediction that is 10 µs better, but this one was measured to be the "
        "fastest"
    )
    assert "more" in reason(plan, plan.subgraphs[1])


@pytest.mark.parametrize(
    ("us", "text"),
    [
        (1000.2, "the same as one after the other"),
        (999.8, "the same as one after the other"),
        (900.0, "10.0 % less than one after the other"),
        (1100.0, "10.0 % more than one after the other"),
    ],
)
def test_a_makespan_is_compared_with_the_sum_without_negative_numbers(us, text):
    value = SimpleNamespace(value=us, bound=us, unit="us", gap=0.0)
    plan = SimpleNamespace(values={"makespan": value}, cost_us=1000.0, order=("s0",))
    (line,) = objective_lines(plan)
    assert f", {text};" in line


def test_a_rounded_zero_has_no_sign():
    assert f"{tenths(-0.04):+.1f}" == "+0.0"
