"""Time under an error budget: the sum of costs, among plans whose predicted error is within a limit."""

from __future__ import annotations

import math

from layoutsel.core.precision import REL_ERROR
from layoutsel.planning.objectives.base import Answer, Assessed, Decisions, Objective
from layoutsel.planning.problem import PlanningProblem
from layoutsel.planning.trade_off import (
    MOST_PLANS,
    curve,
    predicted_within,
    squared_error,
    trade_offs,
)
from layoutsel.planning.values import WITHIN_ERROR


def _assess(problem: PlanningProblem, decisions: Decisions) -> Assessed:
    return Assessed(value=problem.cost(decisions).total_us)


def _excess(problem: PlanningProblem, decisions: Decisions) -> float:
    return max(math.sqrt(squared_error(decisions)) - problem.limits[REL_ERROR], 0.0)


def _solve(problem: PlanningProblem, strategy: str, time_limit_s: float) -> Answer:
    """Take the fastest plan of the trade-off that keeps the limit; the most exact one if none does."""
    plans = trade_offs(problem, strategy=strategy, time_limit_s=time_limit_s / MOST_PLANS)
    chosen = predicted_within(plans, problem.limits[REL_ERROR])
    return Answer(solution=chosen.solution, trade_off=curve(plans, chosen))


def _bound(problem: PlanningProblem, time_limit_s: float) -> float:
    plans = trade_offs(problem, time_limit_s=time_limit_s / MOST_PLANS)
    return plans[0].solution.bounds[WITHIN_ERROR]


OBJECTIVE = Objective(
    name=WITHIN_ERROR,
    unit="us",
    about="within the error budget",
    assess=_assess,
    solvers={"trade-off": _solve},
    bound=_bound,
    time_limit_s=10.0 * MOST_PLANS,
    limits=(REL_ERROR,),
    excess=_excess,
)
