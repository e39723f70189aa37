"""Explanations: counterfactual costs against brute force, gains, and networks too wide to be exact."""

import math
import random
import time

import numpy as np
import pytest
from hypothesis import given, settings
from tiers import examples

from layoutsel.planning import marginals
from layoutsel.planning.explain import explain
from layoutsel.planning.marginals import forced_plans
from layoutsel.planning.solve import solve
from layoutsel.planning.strategies import choose
from layoutsel.planning.tables import build_tables, to_decisions
from tests.planning.problems import (
    brute_force,
    dense_blocks,
    graph_problem,
    random_parents,
    residual_chain,
    small_problems,
)


def forced(problem, id_, decision):
    return problem.restrict(lambda node, o: node.id != id_ or o.decision == decision)


@settings(max_examples=examples(40), deadline=None)
@given(small_problems())
def test_counterfactuals_equal_brute_force(problem):
    solution = solve(problem)
    explanation = explain(problem, solution.decisions)
    assert explanation.exact
    assert explanation.gains.joint_us == pytest.approx(solution.cost_us)
    for subgraph in explanation.subgraphs:
        extras = [other.extra_us for other in subgraph.alternatives]
        assert extras == sorted(extras)
        for other in subgraph.alternatives[:2]:
            best = brute_force(forced(problem, subgraph.id, other.decision))
            assert other.extra_us == pytest.approx(best - solution.cost_us, abs=1e-6)


def parts(cost, id_):
    """What `cost` says of one sub-graph, all transforms, all crossings, and the other sub-graphs."""
    kinds = ("transform", "crossing")
    return [
        cost.subgraphs[id_],
        *(sum(b.cost_us for b in cost.boundaries if b.kind == kind) for kind in kinds),
        sum(us for other, us in cost.subgraphs.items() if other != id_),
    ]


def check_split(problem, decisions, id_, other, then):
    """The split of `other` is what pricing the plan `then` anew gives."""
    before, after = (parts(problem.cost(these), id_) for these in (decisions, then))
    expected = [new - old for old, new in zip(before, after, strict=True)]
    split = [other.own_us, other.transforms_us, other.crossings_us, other.others_us]
    assert split == pytest.approx(expected, abs=1e-4)
    assert sum(split) == pytest.approx(other.extra_us, abs=1e-4)
    assert other.others == sum(decisions[i] != then[i] for i in decisions if i != id_)


@settings(max_examples=examples(40), deadline=None)
@given(small_problems())
def test_the_forced_plans_take_their_option_and_cost_the_marginal(problem):
    tables = build_tables(problem)
    best = solve(problem).cost_us
    plans = forced_plans(tables, best)
    for node, costs in enumerate(plans.costs):
        for option in range(len(costs)):
            choice = plans.choice(node, option)
            assert choice[node] == option
            assert tables.total(choice) == pytest.approx(costs[option], abs=1e-4)


@pytest.mark.parametrize("strategy", ["joint", "score"])
def test_the_split_of_a_chain_equals_pricing_anew(strategy):
    problem = graph_problem([[i - 1] for i in range(9)], random.Random(4))
    decisions = choose(problem, strategy=strategy).decisions
    for subgraph in explain(problem, decisions).subgraphs:
        for other in subgraph.alternatives:
            then = solve(forced(problem, subgraph.id, other.decision)).decisions
            check_split(problem, decisions, subgraph.id, other, then)


def test_the_split_of_blocks_equals_pricing_anew():
    problem = graph_problem(residual_chain(5), random.Random(5))
    decisions = solve(problem).decisions
    plans = forced_plans(build_tables(problem), solve(problem).cost_us)
    for position, subgraph in enumerate(explain(problem, decisions).subgraphs):
        options = [option.decision for option in problem.nodes[position].options]
        for other in subgraph.alternatives:
            choice = plans.choice(position, options.index(other.decision))
            check_split(problem, decisions, subgraph.id, other, to_decisions(problem, choice))


@pytest.mark.parametrize("slack", [0.05, 0.01])
def test_marginals_with_less_slack_are_exact_or_infinite(slack, monkeypatch):
    problem = graph_problem(residual_chain(4), random.Random(0))
    tables = build_tables(problem)
    best = solve(problem).cost_us
    whole = forced_plans(tables, best).costs
    monkeypatch.setattr(marginals, "_SLACKS", (slack,))
    partial = forced_plans(tables, best).costs
    cut = 0
    for every, some in zip(whole, partial, strict=True):
        within = every <= best * (1 + slack)
        np.testing.assert_allclose(some[within], every[within])
        assert (some[~within] >= every[~within] - 1e-6).all()
        cut += int((~within).sum())
    assert cut > 0
    assert min(m.min() for m in whole) == pytest.approx(best)


def test_gains_are_ordered():
    problem = graph_problem(residual_chain(5), random.Random(2))
    score = choose(problem, strategy="score")
    explanation = explain(problem, score.decisions)
    gains = explanation.gains
    assert gains.plan_us == pytest.approx(score.cost_us)
    assert gains.score_us == pytest.approx(score.cost_us)
    assert gains.joint_us <= gains.score_us
    assert gains.joint_us <= gains.layouts_alone_us <= gains.single_us
    assert gains.joint_us <= gains.units_alone_us <= gains.single_us
    assert gains.layouts_alone_unit in problem.units
    assert gains.units_alone_layout in problem.layouts
    assert gains.single_name.endswith(" everywhere")
    assert gains.joint_us == pytest.approx(solve(problem).cost_us)
    boundaries = [b.cost_us for b in explanation.boundaries]
    assert boundaries == sorted(boundaries, reverse=True)
    assert any(o.extra_us < 0 for s in explanation.subgraphs for o in s.alternatives)


def test_a_large_network_in_seconds():
    problem = graph_problem(dense_blocks(4, 15, flat=False), random.Random(2))
    decisions = solve(problem).decisions
    started = time.perf_counter()
    explanation = explain(problem, decisions)
    print(time.perf_counter() - started)
    assert explanation.exact
    assert time.perf_counter() - started < 10


def test_too_wide_means_an_upper_bound():
    rng = random.Random(3)
    problem = graph_problem(random_parents(80, rng, reach=80), rng)
    decisions = solve(problem).decisions
    explanation = explain(problem, decisions, time_limit_s=3)
    assert not explanation.exact
    for subgraph in explanation.subgraphs[:5]:
        for other in subgraph.alternatives:
            changed = {**decisions, subgraph.id: other.decision}
            extra = problem.cost(changed).total_us - problem.cost(decisions).total_us
            assert math.isclose(other.extra_us, extra, abs_tol=1e-6)
            check_split(problem, decisions, subgraph.id, other, changed)
