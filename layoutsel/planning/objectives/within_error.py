"""Time under an error budget: the sum of costs among plans with a limited predicted error."""

from __future__ import annotations

import math
from functools import partial

import numpy as np

from layoutsel.core.precision import REL_ERROR, local_error
from layoutsel.planning.marginals import conditional_marginals
from layoutsel.planning.objectives.base import (
    Answer,
    Assessed,
    Decisions,
    Objective,
    time_of_runs,
)
from layoutsel.planning.other_plans import OtherPlans, least_sums, one_changed
from layoutsel.planning.problem import Option, PlanningProblem, PricedSubgraph
from layoutsel.planning.tables import build_tables, to_choice
from layoutsel.planning.trade_off import (
    MOST_PLANS,
    Weighed,
    curve,
    predicted_within,
    squared_error,
    trade_offs,
)
from layoutsel.planning.values import SUM, WITHIN_ERROR


def _assess(problem: PlanningProblem, decisions: Decisions) -> Assessed:
    return Assessed(value=problem.cost(decisions).total_us)


def _excess(problem: PlanningProblem, decisions: Decisions) -> float:
    return max(math.sqrt(squared_error(decisions)) - problem.limits[REL_ERROR], 0.0)


def _solve(problem: PlanningProblem, strategy: str, time_limit_s: float) -> Answer:
    """Choose the fastest plan of the trade-off that keeps the limit, or else the most exact one."""
    plans = trade_offs(problem, strategy=strategy, time_limit_s=time_limit_s / MOST_PLANS)
    chosen = predicted_within(plans, problem.limits[REL_ERROR])
    return Answer(solution=chosen.solution, trade_off=curve(plans, chosen))


def _attempts(problem: PlanningProblem, strategy: str) -> tuple[Weighed, ...]:
    """List the plans of the trade-off, as measured errors decide, not the rough predicted ones."""
    return trade_offs(problem, strategy=strategy)


def _bound(problem: PlanningProblem, time_limit_s: float) -> float:
    plans = trade_offs(problem, time_limit_s=time_limit_s / MOST_PLANS)
    return plans[0].solution.bounds[WITHIN_ERROR]


def _no_less_exact(decisions: Decisions, node: PricedSubgraph, option: Option) -> bool:
    """True if a candidate's error is no larger than that of the decision for its sub-graph."""
    added = local_error(option.decision.precision)
    return added <= local_error(decisions[node.id].precision)


def _comparable(problem: PlanningProblem, decisions: Decisions) -> PlanningProblem:
    return problem.restrict(partial(_no_less_exact, decisions))


def _others(problem: PlanningProblem, decisions: Decisions, time_limit_s: float) -> OtherPlans:
    """Find the best plans that are no less exact.

    A less exact candidate changes only its own decision.
    """
    kept = [
        [number for number, o in enumerate(node.options) if _no_less_exact(decisions, node, o)]
        for node in problem.nodes
    ]
    found = least_sums(_comparable(problem, decisions), decisions, time_limit_s)
    alone = one_changed(problem, decisions)
    single = conditional_marginals(build_tables(problem), tuple(to_choice(problem, decisions)), 0.0)

    def choice(node: int, option: int) -> tuple[int, ...]:
        if option not in kept[node]:
            return alone(node, option)
        narrowed = found.choice(node, kept[node].index(option))
        return tuple(kept[i][number] for i, number in enumerate(narrowed))

    losses = [np.array(each) for each in single]
    for mine, numbers, better in zip(losses, kept, found.losses, strict=True):
        mine[numbers] = better
    return OtherPlans(losses=losses, choice=choice, exact=found.exact)


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
    unlimited=SUM,
    comparable=_comparable,
    measured=time_of_runs,
    attempts=_attempts,
    others=_others,
    is_additive=True,
)
