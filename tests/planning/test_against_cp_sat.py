"""Solvers against CP-SAT, on random problems that brute force cannot enumerate."""

import random
from dataclasses import replace

import pytest

from layoutsel.core.precision import REL_ERROR, local_error
from layoutsel.planning.makespan import schedule
from layoutsel.planning.makespan_bound import relaxed
from layoutsel.planning.objectives import decide
from layoutsel.planning.parallel import solve_parallel
from layoutsel.planning.problem import PlanningProblem
from layoutsel.planning.solve import solve
from layoutsel.planning.trade_off import squared_error, trade_offs
from layoutsel.planning.values import WITHIN_ERROR
from tests.planning.cp_sat import least_makespan, least_sum, rounded
from tests.planning.problems import (
    LAYOUTS,
    UNITS,
    chain_of_blocks,
    dense_blocks,
    graph_problem,
    mixed,
    random_parents,
    residual_chain,
    twinned,
)
from tests.planning.test_resources import Network
from tests.planning.test_trade_off import with_precisions
from tests.tiers import tiered

SLACK_US = 1e-5


def sum_problem(seed: int) -> PlanningProblem:
    """A random problem of 10 to 40 sub-graphs, each with 2 to 9 candidates."""
    rng = random.Random(seed)
    count = rng.randint(12, 40)
    parents = rng.choice(
        [
            random_parents(count, rng, reach=rng.choice([3, 8, count])),
            chain_of_blocks(rng.randint(2, 4), 3, rng.randint(1, 3)),
            residual_chain(rng.randint(4, 12)),
            dense_blocks(2, rng.randint(2, 4), flat=rng.random() < 0.5),
        ]
    )
    layouts = LAYOUTS[: rng.randint(1, 3)]
    units = rng.choice([UNITS, ("cpu", "onednn", "opencl"), ("cpu", "opencl", "cuda")])
    scale = rng.choice([5.0, 40.0])
    problem = graph_problem(parents, rng, layouts=layouts, units=units, scale=scale)
    return rounded(mixed(problem, rng, layouts, scale) if rng.random() < 0.5 else problem)


@pytest.mark.parametrize("seed", tiered(range(200), range(4)))
def test_the_least_sum(seed):
    problem = sum_problem(seed)
    proof = least_sum(problem)
    assert proof.is_best
    assert problem.cost(proof.decisions).total_us == pytest.approx(proof.value_us)
    for solver in ("auto", "integer", "dual"):
        found = solve(problem, solver=solver, time_limit_s=60.0)
        assert found.bound_us - SLACK_US <= proof.value_us <= found.cost_us + SLACK_US
        assert solver != "auto" or found.gap == 0


def problem_of_precisions(seed: int) -> PlanningProblem:
    """A random problem of 8 to 20 sub-graphs, with an error budget that lets a part of them be inexact."""
    rng = random.Random(seed)
    count = rng.randint(8, 20)
    parents = random_parents(count, rng, reach=4, most=2)
    plain = graph_problem(parents, rng, layouts=LAYOUTS[: rng.randint(1, 2)], units=("cpu",))
    problem = rounded(with_precisions(plain, rng))
    precision = rng.choice(["bf16", "bf16", "split-bf16"])
    # No number of sub-graphs in either precision makes just this error.
    limit = local_error(precision) * (rng.randrange(count) + 0.5) ** 0.5
    return replace(problem, objective=WITHIN_ERROR, limits={REL_ERROR: limit})


@pytest.mark.parametrize("seed", tiered(range(60), range(3)))
def test_the_least_sum_within_an_error(seed):
    problem = problem_of_precisions(seed)
    limit = problem.limits[REL_ERROR]
    proof = least_sum(problem, most_squared=limit**2)
    assert proof.is_best
    assert squared_error(proof.decisions) <= limit**2
    solution = decide(problem).solution
    assert squared_error(solution.decisions) <= limit**2
    assert solution.bounds[WITHIN_ERROR] <= proof.value_us + SLACK_US
    assert proof.value_us <= solution.cost_us + SLACK_US


@pytest.mark.parametrize("seed", tiered(range(60), range(1)))
def test_no_plan_of_a_trade_off_is_beaten(seed):
    problem = problem_of_precisions(seed)
    for plan in trade_offs(problem):
        proof = least_sum(problem, most_squared=plan.squared_error * (1 + 1e-6))
        assert proof.is_best
        assert plan.solution.cost_us == pytest.approx(proof.value_us)
        assert plan.solution.bound_us <= proof.value_us + SLACK_US


def makespan_problem(seed: int) -> PlanningProblem:
    """A random problem of 5 to 13 sub-graphs on two or three memories, of one host or of a network."""
    rng = random.Random(seed)
    parents = rng.choice(
        [
            random_parents(rng.randint(6, 10), rng, reach=4, most=2),
            chain_of_blocks(rng.randint(1, 2), 2, rng.randint(1, 2)),
            chain_of_blocks(1, rng.randint(2, 3), rng.randint(2, 4)),
            residual_chain(rng.randint(2, 4)),
        ]
    )
    layouts, units = rng.choice(
        [
            (LAYOUTS[:1], ("cpu", "opencl")),
            (LAYOUTS[:2], ("cpu", "opencl")),
            (LAYOUTS[:1], ("cpu", "onednn", "opencl")),
            (LAYOUTS[:1], ("cpu", "opencl", "cuda")),
        ]
    )
    scale = rng.choice([5.0, 40.0])
    problem = graph_problem(parents, rng, layouts=layouts, units=units, scale=scale)
    problem = mixed(problem, rng, layouts, scale) if rng.random() < 0.2 else problem
    problem = twinned(problem, 2) if rng.random() < 0.1 else problem
    problem = replace(problem, resources=Network(7.0)) if rng.random() < 0.3 else problem
    return rounded(problem)


@pytest.mark.parametrize("seed", tiered(range(100), range(5)))
def test_the_makespan_and_its_bound(seed):
    """CP-SAT leaves out the order of calls, so that its optimum is a bound on our schedules too."""
    problem = makespan_problem(seed)
    proof = least_makespan(problem, time_limit_s=10.0)
    ordered_us = schedule(problem, proof.decisions).makespan_us
    assert ordered_us >= proof.bound_us - SLACK_US
    found = solve_parallel(problem, solve(problem).decisions)
    us = found.schedule.makespan_us
    assert relaxed(problem).bound_us <= proof.value_us + SLACK_US
    assert found.bound_us <= ordered_us + SLACK_US
    assert proof.bound_us - SLACK_US <= us
    assert not proof.is_best or us <= 1.35 * proof.value_us
