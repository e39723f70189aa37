"""Every solver against brute force on small problems, and against its own bound on large ones."""

import logging
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from layoutsel.planning.integer import solve_integer, solve_relaxation
from layoutsel.planning.presolve import eliminate_dead_ends
from layoutsel.planning.problem import ProblemError
from layoutsel.planning.solve import SOLVERS, solve
from layoutsel.planning.strategies import choose
from layoutsel.planning.tables import build_tables, restrict_tables
from tests.planning.problems import (
    LAYOUTS,
    brute_force,
    graph_problem,
    random_parents,
    small_problems,
)


@settings(max_examples=60, deadline=None)
@given(small_problems(), st.sampled_from(sorted(SOLVERS)))
def test_every_solver_bounds_the_best_plan(problem, solver):
    best = brute_force(problem)
    solution = solve(problem, solver=solver)
    assert solution.cost_us == pytest.approx(problem.cost(solution.decisions).total_us)
    assert solution.bound_us <= best + 1e-6 <= solution.cost_us + 1e-3
    if solver in ("auto", "frontier", "integer"):
        assert solution.cost_us == pytest.approx(best)
        assert solution.gap < 1e-6


@settings(max_examples=40, deadline=None)
@given(small_problems())
def test_relaxation_is_a_bound(problem):
    tables = build_tables(problem)
    relaxation = solve_relaxation(tables, time_limit_s=10)
    best = brute_force(problem)
    assert relaxation.bound_us <= best + 1e-6
    assert all(w.sum() == pytest.approx(1) for w in relaxation.weights)


@pytest.mark.parametrize("reach", [20, 1000])
def test_a_thousand_subgraphs(reach, caplog):
    rng = random.Random(reach)
    parents = random_parents(1000, rng, reach=reach, most=2)
    problem = graph_problem(parents, rng, layouts=(*LAYOUTS, "NCHW8c"))
    assert {len(node.options) for node in problem.nodes} == {8}
    with caplog.at_level(logging.WARNING):
        solution = choose(problem, time_limit_s=10)
    assert solution.gap <= 0.01
    assert solution.time_s < 30  # 10 on an idle machine
    assert bool(caplog.records) == (solution.gap > 0)


def test_unknown_solver():
    problem = graph_problem([[-1]], random.Random(0))
    with pytest.raises(ProblemError, match=r"unknown solver 'magic'; expected one of auto, "):
        solve(problem, solver="magic")


@settings(max_examples=100, deadline=None)
@given(small_problems())
def test_dead_ends_are_in_no_best_plan(problem):
    tables = build_tables(problem)
    rest = restrict_tables(tables, eliminate_dead_ends(tables))
    assert solve_integer(rest, time_limit_s=10).bound_us == pytest.approx(brute_force(problem))
