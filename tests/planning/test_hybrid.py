"""Hybrid measuring against an oracle: it ends at the best plan, measures nothing twice, and always ends."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from problems import brute_force, graph_problem, small_problems
from tiers import examples

from layoutsel.planning import hybrid
from layoutsel.planning.hybrid import BATCH, Tolerance, refine
from layoutsel.planning.solve import solve
from layoutsel.planning.value_of_information import (
    expected_improvement,
    reprice,
    value_of_information,
)
from tvm_passes.errors import LayoutselError

seeds = st.integers(0, 2**32)


def guessed(real, seed, error=0.4):
    """The problem with wrong costs, each as uncertain as it is wrong, and at least as `error`."""
    rng = random.Random(seed)

    def wrong(_, option):
        us = option.cost_us * float(np.exp(rng.gauss(0, error)))
        spread_us = max(abs(us - option.cost_us), error * us)
        return replace(option, cost_us=us, spread_us=spread_us, source="learned")

    return reprice(real, wrong)


def measured(problem):
    return reprice(problem, lambda _, o: replace(o, spread_us=0.0, source="measured"))


class Oracle:
    """Answers with the true costs; remembers what it was asked for."""

    def __init__(self, real, budget=10**6, fails=lambda _: False):
        self.real, self.left, self.fails, self.asked = real, budget, fails, []

    def __call__(self, candidates):
        assert 0 < len(candidates) <= BATCH
        taken = candidates[: self.left]
        self.left -= len(taken)
        self.asked += taken
        return {
            (id_, decision): None
            if self.fails((id_, decision))
            else self.real.by_id[id_].option(decision)
            for id_, decision in taken
        }


def each_by_itself(problem):
    return {node.id: node.id for node in problem.nodes}


@settings(max_examples=examples(40), deadline=None)
@given(small_problems(), seeds)
def test_with_every_cost_known_the_plan_is_the_best(problem, seed):
    real, oracle = measured(problem), Oracle(measured(problem))
    refined = refine(guessed(real, seed), each_by_itself(real), oracle, tolerance=Tolerance(0.0))
    assert refined.stable
    assert real.cost(refined.solution.decisions).total_us == pytest.approx(brute_force(real))
    assert len(set(oracle.asked)) == len(oracle.asked) == refined.measured


@settings(max_examples=examples(40), deadline=None)
@given(small_problems(), seeds, st.floats(0.0, 0.2), st.floats(0.0, 1e3))
def test_measuring_ends_at_the_tolerance(problem, seed, share, least):
    real, tolerance = measured(problem), Tolerance(share, least)
    oracle = Oracle(real)
    guess = guessed(real, seed)
    refined = refine(guess, each_by_itself(real), oracle, tolerance=tolerance)
    assert refined.stable
    assert refined.information.loss <= max(share * refined.solution.cost_us, least)
    before = value_of_information(guess, solve(guess).decisions)
    if tolerance.accepts(before.loss, solve(guess).cost_us):
        assert oracle.asked == []


@settings(max_examples=examples(40), deadline=None)
@given(small_problems(), seeds, st.integers(0, 8))
def test_a_budget_is_kept(problem, seed, budget):
    oracle = Oracle(measured(problem), budget)
    guess = guessed(measured(problem), seed)
    refined = refine(guess, each_by_itself(problem), oracle)
    assert refined.measured == len(oracle.asked) <= budget
    known = {
        (node.id, option.decision)
        for node in refined.problem.nodes
        for option in node.options
        if option.source == "measured"
    }
    assert known == set(oracle.asked)
    best = solve(refined.problem)
    assert refined.solution.decisions == best.decisions
    assert refined.stable or oracle.left == 0


@settings(max_examples=examples(40), deadline=None)
@given(small_problems(), seeds, st.floats(0.0, 1.0))
def test_what_fails_is_never_planned_where_anything_else_works(problem, seed, share):
    rng, real = random.Random(seed), measured(problem)
    broken = {
        (node.id, option.decision)
        for node in real.nodes
        for option in node.options
        if rng.random() < share
    }
    oracle = Oracle(real, fails=broken.__contains__)
    refined = refine(guessed(real, seed), each_by_itself(real), oracle)
    found_out = broken & set(oracle.asked)
    for node in refined.problem.nodes:
        assert node.options
        left = {(node.id, option.decision) for option in node.options}
        assert not left & found_out or len(left) == 1
    assert len(oracle.asked) <= sum(len(node.options) for node in real.nodes)


@settings(max_examples=examples(30), deadline=None)
@given(small_problems(), seeds)
def test_equal_subgraphs_are_asked_about_once_and_all_learn(problem, seed):
    first = problem.nodes[0]
    costs = {option.decision: option.cost_us for option in first.options}
    real = measured(reprice(problem, lambda _, o: replace(o, cost_us=costs[o.decision])))
    keys = {node.id: f"key {number % 2}" for number, node in enumerate(real.nodes)}
    oracle = Oracle(real)
    refined = refine(guessed(real, seed), keys, oracle)
    asked = [(keys[id_], decision) for id_, decision in oracle.asked]
    assert len(set(asked)) == len(asked)
    for node in refined.problem.nodes:
        for option in node.options:
            assert (option.source == "measured") == ((keys[node.id], option.decision) in asked)


@settings(max_examples=examples(40), deadline=None)
@given(small_problems(), seeds)
def test_worth_is_of_candidates_that_are_not_measured(problem, seed):
    rng = random.Random(seed)
    mixed = reprice(
        guessed(problem, seed),
        lambda _, o: replace(o, source="measured") if rng.random() < 0.5 else o,
    )
    found = value_of_information(mixed, solve(mixed).decisions)
    assert found.loss >= 0
    for (id_, decision), gain in found.worth.items():
        assert gain > 0
        assert mixed.by_id[id_].option(decision).source != "measured"


@settings(max_examples=examples(30), deadline=None)
@given(small_problems(), seeds)
def test_what_cannot_come_close_is_worth_almost_nothing(problem, seed):
    """Uncertain by a thousandth, slower by a thousand times."""
    fast = solve(problem).decisions
    far = reprice(
        problem,
        lambda node, o: replace(
            o,
            cost_us=o.cost_us if o.decision == fast[node.id] else 1e6 + o.cost_us,
            spread_us=1e-3 * o.cost_us,
            source="learned",
        ),
    )
    found = value_of_information(far, fast)
    assert found.loss <= 1e-6 * solve(far).cost_us
    oracle = Oracle(measured(far))
    assert refine(far, each_by_itself(far), oracle).stable
    assert oracle.asked == []


@given(delta=st.floats(0, 1e12), scale=st.floats(1e-12, 1e12))
def test_an_expected_improvement_is_a_number_for_any_scale(delta, scale):
    assert 0 <= expected_improvement(delta, scale) <= scale


@given(delta=st.floats(0, 100), scale=st.floats(0.01, 100), more=st.floats(1.0, 10.0))
def test_improvements_grow_with_uncertainty_and_fall_with_distance(delta, scale, more):
    gain = expected_improvement(delta, scale)
    assert expected_improvement(delta, scale * more) >= gain - 1e-9 * scale * more
    assert expected_improvement(delta * more, scale) <= gain + 1e-9 * scale


@given(small_problems())
def test_estimates_of_a_unit_are_left_out_where_there_are_others(problem):
    unit = problem.units[0]
    mixed = reprice(
        problem,
        lambda node, option: replace(
            option, source="roofline" if option.decision.unit == unit else "measured"
        ),
    )
    left = hybrid.without_estimates(mixed, (unit,))
    assert hybrid.has_estimates(mixed, (unit,))
    assert not hybrid.has_estimates(mixed, set(problem.units) - {unit})
    if len(problem.units) > 1:
        assert not hybrid.has_estimates(left, (unit,))
        assert all(len(node.declines) > 0 for node in left.nodes)
    else:
        assert left.nodes == mixed.nodes


@pytest.mark.parametrize(
    ("lacking", "advice"),
    [
        ({("s0", "onednn"), ("s1", "onednn")}, "name what was measured with --units cpu"),
        ({("s0", "onednn"), ("s1", "cpu")}, ""),
        ({("s0", "cpu"), ("s0", "onednn"), ("s1", "cpu"), ("s1", "onednn")}, ""),
    ],
)
def test_what_was_not_measured_is_refused_with_advice_that_helps(lacking, advice):
    problem = measured(graph_problem([[-1], [0]], random.Random(0), layouts=("NCHW",)))
    nodes = [
        replace(
            node,
            options=tuple(
                replace(o, source="learned") if (node.id, o.decision.unit) in lacking else o
                for o in node.options
            ),
        )
        for node in problem.nodes
    ]
    hybrid.require_measured(problem, "here")
    with pytest.raises(LayoutselError, match=f"of {len(lacking)} of 4 candidates") as refused:
        hybrid.require_measured(replace(problem, nodes=tuple(nodes)), "here")
    assert str(refused.value).endswith(advice or "Use --cost learned or roofline")
