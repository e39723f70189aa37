"""The chosen plan against its rivals: the best is kept, its prediction compared with measurement.

Among the rivals are plans made anew of what the sub-graphs took within the others.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace

from layoutsel import documents
from layoutsel.compile.attribution import residuals_of
from layoutsel.compile.contest import CHOSEN, Contender, Contest
from layoutsel.compile.make_plan import explained_plan
from layoutsel.compile.memory import MemoryBudget
from layoutsel.compile.session import Session
from layoutsel.core.precision import OWN, PrecisionMode
from layoutsel.device.signature import signatures
from layoutsel.planning.alternatives import best_with
from layoutsel.planning.contenders import contenders, narrowings
from layoutsel.planning.objectives import answer, objective_of, unlimited
from layoutsel.planning.plan import Plan, make_plan
from layoutsel.planning.problem import PlanningProblem
from layoutsel.planning.solve import Solution
from layoutsel.planning.trade_off import squared_error
from layoutsel.runtime.compiled import CompiledModel
from layoutsel.runtime.samples import random_inputs
from tvm_passes.decision import Decision, SubgraphId

logger = logging.getLogger(__name__)

Decisions = Mapping[SubgraphId, Decision]

REFINED = "refined"
"""Names of plans that were made of what sub-graphs took within others begin with it."""
REFINEMENTS = 3
"""Most refined plans, for each set of precisions."""
GAIN = 0.02
"""Share of the best one's value that a refined plan must promise to save."""
REFINE_LIMIT_S = 5.0
"""Time to solve for a refined plan."""


def raced(
    session: Session,
    chosen: Plan,
    problem: PlanningProblem,
    weighed: PlanningProblem | None = None,
    built: CompiledModel | None = None,
    below: float = math.inf,
) -> list[Contender]:
    """Build `chosen` and its rivals, and race them; the best first, each with all measurements.

    The objective of `problem` says which one is better. The race takes at most the session's time
    limit, and what was begun by then: one build, and one run of each contender.

    Parameters
    ----------
    session, chosen, problem
        The plan, and what it was made of.
    weighed
        The problem whose prices the rivals shall be good by, where these are not those of `problem`.
    built
        The chosen plan's model, where there is one already.
    below
        Rivals of this predicted squared error or a larger one are left out: such a plan is known not to do.
    """
    contest = Contest(
        session,
        problem,
        random_inputs(signatures(session.model.inputs)),
        time.monotonic() + session.options.time_limit_s,
        MemoryBudget.of(session.graph, session.before_bytes, session.options.memory_limit_mb),
    )
    contest.enter_chosen(chosen, built)
    rivals = {
        name: plan_of(chosen, problem, decisions, name)
        for name, decisions in _rivals(chosen, problem, weighed, session.precision).items()
        if squared_error(decisions) < below
    }
    contest.enter(rivals)
    refined = narrowings(problem, session.precision.stricter)
    if weighed is not None:
        refined[""] = _same_precisions(problem, chosen.decisions)
    for where, narrowed in refined.items():
        _refine(contest, chosen, problem, narrowed, where, below)
    return contest.ranked()


def _refine(
    contest: Contest,
    chosen: Plan,
    problem: PlanningProblem,
    narrowed: PlanningProblem,
    where: str,
    below: float,
) -> None:
    """Enter plans of the `narrowed` problem, each made of what sub-graphs took within all before it."""
    for number in range(1, REFINEMENTS + 1):
        if contest.is_over():
            return
        # Limits are of measured quantities, which the race does not know: `below` stands for them.
        priced = unlimited(contest.priced(narrowed))
        # Rivals may have precisions that a refined plan shall not.
        legal = [decisions for decisions in contest.tried if priced.offers(decisions)]
        found = answer(priced, time_limit_s=REFINE_LIMIT_S).solution
        is_known = dict(found.decisions) in contest.tried
        if is_known or not _is_promising(priced, found.decisions, legal):
            return
        if squared_error(found.decisions) >= below:
            return
        name = f"{REFINED} {number}{where}"
        contest.enter({name: plan_of(chosen, problem, found.decisions, name)})


def _is_promising(
    problem: PlanningProblem, decisions: Decisions, tried: Sequence[Decisions]
) -> bool:
    """True if a plan is better by :data:`GAIN` than each of those that were tried."""
    objective = objective_of(problem.objective)
    best = min((objective.rank(problem, one) for one in tried), default=(0.0, math.inf))[1]
    return objective.rank(problem, decisions)[1] <= best - GAIN * abs(best)


def _same_precisions(
    problem: PlanningProblem, decisions: Mapping[SubgraphId, Decision]
) -> PlanningProblem:
    return problem.restrict(
        lambda node, option: option.decision.precision == decisions[node.id].precision
    )


def crowned(
    session: Session, winner: Contender, chosen: Plan, problem: PlanningProblem
) -> CompiledModel:
    """The model of `winner`, which holds its plan with reasons, what was measured and where it was mispredicted."""
    model, plan = winner.model, winner.plan
    if winner.name != CHOSEN:
        solution = _solution(chosen, problem, plan.decisions)
        explained = explained_plan(session, problem, solution, winner.name)
        plan = replace(
            explained,
            measured=plan.measured,
            trade_off=plan.trade_off,
        )
    residuals = residuals_of(session, model, plan, random_inputs(model.inputs))
    model.header["plan"] = documents.to_json(replace(plan, residuals=residuals))
    return model


def announce(winner: Contender) -> None:
    """Say that another plan than the chosen one is kept, if it was faster."""
    own, theirs = winner.plan.measured[winner.name], winner.plan.measured[CHOSEN]
    if winner.name != CHOSEN and own.median_us < theirs.median_us:
        # That a plan can be refined is the usual case; that a rule of thumb beats it is not.
        level = logging.INFO if winner.name.startswith(REFINED) else logging.WARNING
        logger.log(
            level,
            "the plan %r is faster than the chosen one: %.1f us against %.1f us; it is kept",
            winner.name,
            own.median_us,
            theirs.median_us,
        )


def _rivals(
    chosen: Plan, problem: PlanningProblem, weighed: PlanningProblem | None, mode: PrecisionMode
) -> dict[str, Mapping[SubgraphId, Decision]]:
    """Plans to race `chosen` with: those of the prices that it was made by, then of every stricter set of precisions."""
    plans = contenders(weighed or problem, () if mode.only_f32 else mode.stricter)
    if weighed is not None:
        plans |= contenders(problem, mode.stricter, narrowed_alone=True)
    return {name: d for name, d in plans.items() if dict(d) != chosen.decisions}


def only_f32(problem: PlanningProblem) -> Mapping[SubgraphId, Decision]:
    """The best plan in f32 alone, where pins leave that."""
    return best_with(problem, lambda _node, option: option.decision.precision in OWN)


def plan_of(
    chosen: Plan, problem: PlanningProblem, decisions: Mapping[SubgraphId, Decision], name: str
) -> Plan:
    """A rival of `chosen`, without reasons."""
    made = make_plan(
        problem,
        _solution(chosen, problem, decisions),
        strategy=name,
        machine=chosen.machine,
        versions=chosen.versions,
        threads=chosen.threads,
        score_cost_us=chosen.score_cost_us,
    )
    return replace(made, precision=chosen.precision, max_rel_error=chosen.max_rel_error)


def _solution(
    chosen: Plan, problem: PlanningProblem, decisions: Mapping[SubgraphId, Decision]
) -> Solution:
    return Solution(
        decisions=decisions,
        cost_us=problem.cost(decisions).total_us,
        bound_us=chosen.bound_us,
        solver=chosen.solver,
        time_s=chosen.time_s,
        bounds={name: value.bound for name, value in chosen.values.items()},
    )
