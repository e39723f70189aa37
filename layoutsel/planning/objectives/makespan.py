"""Makespan: the time until all results are there, while devices and the host work at the same time."""

from __future__ import annotations

from dataclasses import replace

from layoutsel.planning.makespan import schedule
from layoutsel.planning.makespan_bound import relaxed
from layoutsel.planning.objectives.base import Answer, Assessed, Decisions, Objective
from layoutsel.planning.parallel import solve_parallel
from layoutsel.planning.problem import PlanningProblem
from layoutsel.planning.strategies import choose
from layoutsel.planning.values import MAKESPAN


def _assess(problem: PlanningProblem, decisions: Decisions) -> Assessed:
    found = schedule(problem, decisions)
    return Assessed(value=found.makespan_us, order=found.order)


def _search(problem: PlanningProblem, strategy: str, time_limit_s: float) -> Answer:
    """Search from the plan with the least sum, to which a quarter of the time goes."""
    first = choose(problem, strategy=strategy, time_limit_s=time_limit_s / 4)
    found = solve_parallel(problem, first.decisions, time_limit_s=3 * time_limit_s / 4)
    solution = replace(
        first,
        decisions=found.decisions,
        cost_us=problem.cost(found.decisions).total_us,
        bounds={MAKESPAN: found.bound_us},
    )
    return Answer(solution=solution)


def _bound(problem: PlanningProblem, time_limit_s: float) -> float:
    return relaxed(problem, time_limit_s=time_limit_s).bound_us


OBJECTIVE = Objective(
    name=MAKESPAN,
    unit="us",
    about="devices and host at once",
    assess=_assess,
    solvers={"schedule search": _search},
    bound=_bound,
    time_limit_s=40.0,
)
