"""Sum of costs: the time of a plan whose sub-graphs and boundaries run one after another."""

from __future__ import annotations

from functools import partial

from layoutsel.planning.objectives.base import (
    Answer,
    Assessed,
    Decisions,
    Objective,
    time_of_runs,
)
from layoutsel.planning.other_plans import least_sums
from layoutsel.planning.problem import PlanningProblem
from layoutsel.planning.solve import SOLVERS, solve
from layoutsel.planning.strategies import choose
from layoutsel.planning.values import SUM


def _assess(problem: PlanningProblem, decisions: Decisions) -> Assessed:
    return Assessed(value=problem.cost(decisions).total_us)


def _solve(solver: str, problem: PlanningProblem, strategy: str, time_limit_s: float) -> Answer:
    found = choose(problem, strategy=strategy, time_limit_s=time_limit_s, solver=solver)
    return Answer(solution=found)


def _bound(problem: PlanningProblem, time_limit_s: float) -> float:
    return solve(problem, time_limit_s=time_limit_s).bound_us


OBJECTIVE = Objective(
    name=SUM,
    unit="us",
    about="one after the other",
    assess=_assess,
    solvers={name: partial(_solve, name) for name in SOLVERS},
    bound=_bound,
    measured=time_of_runs,
    others=least_sums,
    is_additive=True,
)
