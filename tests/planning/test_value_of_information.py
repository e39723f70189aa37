"""What is worth measuring, and measuring it."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from problems import graph_problem
from scipy import integrate, stats
from tiers import examples

from layoutsel.planning.hybrid import BATCH, refine
from layoutsel.planning.solve import solve
from layoutsel.planning.value_of_information import (
    bound_within_spread,
    expected_improvement,
    reprice,
    value_of_information,
)

CHAIN = [[-1], [0], [1], [2], [1, 3]]


def problem(seed: int, spread: float, source: str = "learned"):
    found = graph_problem(CHAIN, random.Random(seed))
    return reprice(found, lambda _, o: replace(o, spread_us=spread * o.cost_us, source=source))


def predicted(real, seed: int, error: float):
    """The same with wrong costs, that know how wrong they are."""
    rng = random.Random(seed)
    return reprice(
        real,
        lambda _, o: replace(
            o,
            cost_us=o.cost_us * float(np.exp(rng.gauss(0, error))),
            spread_us=0.67 * error * o.cost_us,
            source="learned",
        ),
    )


@given(delta=st.floats(0, 5), scale=st.floats(0.1, 3))
def test_expected_improvement_is_its_integral(delta, scale):
    """That of the probability that the difference is below -x."""
    wanted, _ = integrate.quad(lambda x: stats.t.cdf(-x, 2, delta, scale), 0, np.inf)
    assert expected_improvement(delta, scale) == pytest.approx(wanted, abs=1e-6)


def test_nothing_is_worth_measuring_where_all_is_measured():
    found = problem(0, 0.3, source="measured")
    assert not value_of_information(found, solve(found).decisions).worth


@settings(max_examples=examples(20), deadline=None)
@given(seed=st.integers(0, 10_000))
def test_less_uncertainty_costs_less(seed):
    losses = []
    for spread in (0.3, 0.1, 0.01, 0.0):
        found = problem(seed, spread)
        solution = solve(found)
        losses.append(value_of_information(found, solution.decisions).loss)
        assert bound_within_spread(found) <= solution.bound_us + 1e-6
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] == 0


def test_no_more_is_saved_than_a_plan_costs():
    found = problem(0, 50.0)
    solution = solve(found)
    assert value_of_information(found, solution.decisions).loss == pytest.approx(solution.cost_us)


@settings(max_examples=examples(20), deadline=None)
@given(seed=st.integers(0, 10_000))
def test_with_time_enough_the_plan_is_as_good_as_measured(seed):
    real = problem(seed, 0.0, source="measured")
    guess = predicted(real, seed, 0.3)
    asked = []

    def measure(candidates):
        asked.extend(candidates)
        assert len(candidates) <= BATCH
        return {(i, d): real.by_id[i].option(d) for i, d in candidates}

    refined = refine(guess, {node.id: node.id for node in real.nodes}, measure)
    assert refined.stable
    assert len(set(asked)) == len(asked) == refined.measured
    loss = real.cost(refined.solution.decisions).total_us / solve(real).cost_us - 1
    assert loss < 0.1
    assert len(asked) <= sum(len(node.options) for node in real.nodes)


def test_a_spent_budget_ends_it():
    real = problem(3, 0.0, source="measured")
    refined = refine(predicted(real, 3, 0.5), {n.id: n.id for n in real.nodes}, lambda _: {})
    assert not refined.stable
    assert refined.measured == 0


def test_equal_subgraphs_are_measured_once():
    real = problem(5, 0.0, source="measured")
    first = real.nodes[0]
    nodes = tuple(
        replace(
            node,
            options=tuple(
                replace(o, cost_us=p.cost_us)
                for o, p in zip(node.options, first.options, strict=True)
            ),
        )
        for node in real.nodes
    )
    real = replace(real, nodes=nodes)
    asked = []

    def measure(candidates):
        asked.extend(decision for _, decision in candidates)
        return {(i, d): real.by_id[i].option(d) for i, d in candidates}

    refine(predicted(real, 5, 0.4), dict.fromkeys((n.id for n in nodes), "same"), measure)
    assert len(asked) == len(set(asked))


def test_what_does_not_work_is_dropped_but_for_the_last():
    guess = predicted(problem(7, 0.0), 7, 0.5)
    refined = refine(guess, {n.id: n.id for n in guess.nodes}, dict.fromkeys)
    assert all(node.options for node in refined.problem.nodes)
