"""Every solver against brute force on small problems, and against its own bound on large ones."""

import logging
import random
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiers import examples

from layoutsel.planning.dual_bound import ascend
from layoutsel.planning.frontier import OutOfSpace, solve_frontier
from layoutsel.planning.integer import solve_integer
from layoutsel.planning.objectives import decide
from layoutsel.planning.presolve import eliminate_dead_ends
from layoutsel.planning.problem import ProblemError
from layoutsel.planning.solve import SOLVERS, solve
from layoutsel.planning.tables import build_tables, restrict_tables
from tests.planning.problems import (
    LAYOUTS,
    brute_force,
    graph_problem,
    random_parents,
    small_problems,
)


@settings(max_examples=examples(60), deadline=None)
@given(small_problems(), st.sampled_from(sorted(SOLVERS)))
def test_every_solver_bounds_the_best_plan(problem, solver):
    best = brute_force(problem)
    solution = solve(problem, solver=solver)
    assert solution.cost_us == pytest.approx(problem.cost(solution.decisions).total_us)
    assert solution.bound_us <= best + 1e-6 <= solution.cost_us + 1e-3
    if solver in ("auto", "frontier", "integer"):
        assert solution.cost_us == pytest.approx(best)
        assert solution.gap < 1e-6


@settings(max_examples=examples(40), deadline=None)
@given(small_problems())
def test_dual_bound_holds_for_every_forced_option(problem):
    tables = build_tables(problem)
    dual = ascend(tables, deadline=time.monotonic() + 10)
    best = brute_force(problem)
    assert dual.bound_us <= best + 1e-6
    assert best <= tables.total(dual.choice) + 1e-6
    for node, raises in enumerate(dual.raises_us):
        kept = [np.arange(len(costs)) for costs in tables.costs]
        for option, raised in enumerate(raises):
            kept[node] = np.array([option])
            forced = restrict_tables(tables, kept)
            cost = forced.total(solve_frontier(forced).choice)
            assert dual.bound_us + raised <= cost + 1e-6


@pytest.mark.parametrize("seed", range(3))
def test_fixing_by_the_bound_keeps_the_best_plan(seed, monkeypatch):
    rng = random.Random(seed)
    problem = graph_problem(random_parents(25, rng, reach=6), rng, scale=5.0)
    exact = solve(problem, solver="frontier")

    calls = []

    def refuse_first(*args, **options):
        calls.append(args)
        if len(calls) == 1:
            raise OutOfSpace("as if it were wide")
        return solve_frontier(*args, **options)

    monkeypatch.setattr("layoutsel.planning.solve.solve_frontier", refuse_first)
    solution = solve(problem)
    assert solution.solver in ("dual", "dual+frontier")
    assert solution.cost_us == pytest.approx(exact.cost_us)
    assert solution.gap < 1e-8


@pytest.mark.nightly
@pytest.mark.parametrize("reach", [20, 1000])
def test_a_thousand_subgraphs(reach, caplog):
    rng = random.Random(reach)
    parents = random_parents(1000, rng, reach=reach, most=2)
    problem = graph_problem(parents, rng, layouts=(*LAYOUTS, "NCHW8c"))
    assert {len(node.options) for node in problem.nodes} == {8}
    with caplog.at_level(logging.WARNING):
        solution = decide(problem, time_limit_s=10).solution
    assert solution.gap <= 0.01
    assert solution.time_s < 30  # 10 on an idle machine
    assert bool(caplog.records) == (solution.gap > 0)


def test_unknown_solver():
    problem = graph_problem([[-1]], random.Random(0))
    with pytest.raises(ProblemError, match=r"unknown solver 'magic'; expected one of auto, "):
        solve(problem, solver="magic")


@settings(max_examples=examples(100), deadline=None)
@given(small_problems())
def test_dead_ends_are_in_no_best_plan(problem):
    tables = build_tables(problem)
    rest = restrict_tables(tables, eliminate_dead_ends(tables))
    assert solve_integer(rest, time_limit_s=10).bound_us == pytest.approx(brute_force(problem))
