"""Time against error: the plans found are the corners of what brute force finds."""

import itertools
import random
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiers import examples

from layoutsel.core.precision import local_error
from layoutsel.planning.alternatives import precision_plans
from layoutsel.planning.problem import PlanningProblem
from layoutsel.planning.trade_off import (
    curve,
    most_exact,
    predicted_within,
    squared_error,
    trade_offs,
    weigh,
)
from tests.planning.problems import graph_problem, price_tensors, random_parents
from tvm_passes.layout import stored
from tvm_passes.precisions import storage_in

ALL = 1000


def with_precisions(problem: PlanningProblem, rng: random.Random) -> PlanningProblem:
    """The problem with every candidate in each precision, the less exact ones faster as a rule."""
    speed = {"f32": 1.0, "split-bf16": 0.7, "bf16": 0.4}

    def variants(option):
        for precision, factor in speed.items():
            storage = storage_in(precision)
            yield replace(
                option,
                decision=replace(option.decision, precision=precision),
                cost_us=option.cost_us * factor * rng.uniform(0.7, 1.4),
                in_layouts=tuple(stored(layout, storage) for layout in option.in_layouts),
                out_layouts=tuple(stored(layout, storage) for layout in option.out_layouts),
            )

    nodes = tuple(
        replace(node, options=tuple(v for option in node.options for v in variants(option)))
        for node in problem.nodes
    )
    tensors = price_tensors(
        problem.tensors, nodes, lambda *_: rng.uniform(0.5, 9.0), lambda *_: rng.uniform(0.5, 3.0)
    )
    return replace(problem, nodes=nodes, tensors=tensors)


@st.composite
def problems(draw) -> PlanningProblem:
    rng = random.Random(draw(st.integers(0, 2**32)))
    count = draw(st.integers(1, 3))
    parents = random_parents(count, rng, reach=count, most=2)
    layouts = ("NCHW", "NHWC")[: draw(st.integers(1, 2))]
    return with_precisions(graph_problem(parents, rng, layouts=layouts, units=("cpu",)), rng)


def every_plan(problem):
    """(cost, squared error) of every plan."""
    ids = [node.id for node in problem.nodes]
    for choice in itertools.product(*([o.decision for o in n.options] for n in problem.nodes)):
        decisions = dict(zip(ids, choice, strict=True))
        yield problem.cost(decisions).total_us, squared_error(decisions)


def corners(points):
    """The lower left corners of the convex hull of `points`, the fastest first."""
    best = {}
    for cost, error in points:
        best[error] = min(cost, best.get(error, float("inf")))
    hull = []
    for error, cost in sorted(best.items()):
        if hull and cost >= hull[-1][0]:
            continue  # beaten in both
        while len(hull) > 1 and _is_above(hull[-2], hull[-1], (cost, error)):
            hull.pop()
        hull.append((cost, error))
    return hull[::-1]


def _is_above(left, middle, right):
    """Whether `middle` is on or above the line from `left` to `right`."""
    (x0, y0), (x1, y1), (x2, y2) = left, middle, right
    return (x1 - x0) * (y2 - y0) >= (x2 - x0) * (y1 - y0) * (1 - 1e-9)


@settings(deadline=None, max_examples=examples(60))
@given(problems())
def test_the_plans_are_the_corners_of_all(problem):
    found = [(plan.solution.cost_us, plan.squared_error) for plan in trade_offs(problem, most=ALL)]
    expected = corners(every_plan(problem))
    assert found[0][0] == pytest.approx(expected[0][0])
    assert found[-1] == pytest.approx(expected[-1])
    for corner in expected:
        assert any(plan == pytest.approx(corner, rel=1e-6) for plan in found)


@settings(deadline=None, max_examples=examples(60))
@given(problems())
def test_no_plan_is_beaten_and_bounds_hold(problem):
    points = list(every_plan(problem))
    plans = trade_offs(problem)
    assert len(plans) <= 8
    for plan in plans:
        as_exact = min(cost for cost, error in points if error <= plan.squared_error * (1 + 1e-9))
        assert plan.solution.cost_us == pytest.approx(as_exact)
        assert plan.solution.bound_us <= as_exact + 1e-6
    errors = [plan.error for plan in plans]
    assert errors == sorted(set(errors), reverse=True)


def test_one_precision_has_nothing_to_trade():
    problem = graph_problem([[-1], [0]], random.Random(0))
    (plan,) = trade_offs(problem)
    assert plan.solution.gap == 0
    assert plan.error == pytest.approx(2**0.5 * local_error("f32"))


def test_the_fastest_within_the_predicted_error():
    problem = with_precisions(graph_problem([[-1], [0], [1]], random.Random(5)), random.Random(5))
    plans = trade_offs(problem)
    assert len(plans) > 2
    assert predicted_within(plans, 1.0) is plans[0]
    assert predicted_within(plans, 0.0) is plans[-1]
    assert predicted_within(plans, plans[1].error) is plans[1]
    points = curve(plans, plans[1])
    assert [point.chosen for point in points].index(True) == 1
    assert all(sum(point.precisions.values()) == 3 for point in points)


def test_weighing_leaves_f32_nearly_as_it_is():
    problem = with_precisions(graph_problem([[-1]], random.Random(1)), random.Random(1))
    weighed = weigh(problem, 1e6)
    for before, after in zip(problem.nodes[0].options, weighed.nodes[0].options, strict=True):
        extra = 1e6 * local_error(before.decision.precision) ** 2
        assert after.cost_us == pytest.approx(before.cost_us + extra)
    assert most_exact(problem).precisions == ("f32",)


def test_a_plan_for_each_precision():
    problem = with_precisions(graph_problem([[-1], [0]], random.Random(2)), random.Random(2))
    plans = {plan.name: plan.decisions.values() for plan in precision_plans(problem)}
    assert set(plans) == {"only f32", "only split-bf16", "only bf16"}
    for name, decisions in plans.items():
        assert {decision.precision for decision in decisions} == {name.removeprefix("only ")}
