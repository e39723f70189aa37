"""The exact dynamic program against brute force, and on networks shaped like real ones."""

import random
import time

import pytest
from hypothesis import given, settings
from tiers import examples

from layoutsel.planning.frontier import OutOfSpace, solve_frontier
from layoutsel.planning.solve import solve
from layoutsel.planning.tables import build_tables, to_decisions
from tests.planning.problems import (
    brute_force,
    chain_of_blocks,
    dense_blocks,
    graph_problem,
    random_parents,
    residual_chain,
    small_problems,
)


@settings(max_examples=examples(150), deadline=None)
@given(small_problems())
def test_equals_brute_force(problem):
    tables = build_tables(problem)
    result = solve_frontier(tables)
    assert result.exact
    cost = problem.cost(to_decisions(problem, result.choice)).total_us
    assert cost == pytest.approx(tables.total(result.choice))
    assert cost == pytest.approx(brute_force(problem))


SHAPES = {
    "resnet": residual_chain(17),
    "inception": chain_of_blocks(9, 4, 3),
    "densenet": dense_blocks(4, 15, flat=False),
    "densenet flat": dense_blocks(4, 12, flat=True),
}


@pytest.mark.parametrize("name", SHAPES)
def test_real_shapes_are_exact_in_a_second(name):
    problem = graph_problem(SHAPES[name], random.Random(name))
    started = time.process_time()
    solution = solve(problem, time_limit_s=60)
    assert time.process_time() - started < 2.0  # one on an idle machine
    assert solution.solver == "frontier"
    assert solution.gap == 0


def test_gives_up_or_goes_on_when_too_wide():
    problem = graph_problem(random_parents(60, random.Random(1), reach=60), random.Random(1))
    tables = build_tables(problem)
    with pytest.raises(OutOfSpace):
        solve_frontier(tables, max_states=20)
    result = solve_frontier(tables, max_states=20, beam=True)
    assert not result.exact
    assert result.widest <= 20
