"""Race of the chosen plan with its contenders.

Some contenders are new plans based on the times of sub-graphs within other contenders.
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
from layoutsel.planning.new_plan import make_plan
from layoutsel.planning.objectives import answer, objective_of, unlimited
from layoutsel.planning.plan import Plan
from layoutsel.planning.problem import PlanningProblem
from layoutsel.planning.solve import Solution
from layoutsel.planning.trade_off import squared_error
from layoutsel.runtime.compiled import CompiledModel
from layoutsel.runtime.samples import random_inputs
from tvm_passes.decision import Decision, SubgraphId

logger = logging.getLogger(__name__)

Decisions = Mapping[SubgraphId, Decision]

REFINED = "refined"
"""Prefix of the names of plans based on times within other plans."""
REFINEMENTS = 3
"""Maximum number of refined plans for each set of precisions."""
GAIN = 0.02
"""Minimum predicted gain of a refined plan, as a share of the best value so far."""
REFINE_LIMIT_S = 5.0
"""Time limit of solving for a refined plan, seconds."""


def raced(
    session: Session,
    chosen: Plan,
    problem: PlanningProblem,
    weighed: PlanningProblem | None = None,
    built: CompiledModel | None = None,
    below: float = math.inf,
) -> list[Contender]:
    """Build `chosen` and its contenders, and race them.

    The objective of `problem` decides which one is better. The race takes at most the session's
    time limit, plus one build and one run of each contender that began before it.

    Parameters
    ----------
    session, chosen, problem
        The plan, and the session and problem that it comes from.
    weighed
        Copy of `problem` with other prices, by which contenders are chosen; `problem` if None.
    built
        Model of the chosen plan, if it was built before.
    below
        Upper limit of the predicted squared error: contenders that reach it are left out, as a plan
        with this error is known to be too inexact.

    Returns
    -------
    list of Contender
        Contenders, the best first, each with all measurements.
    """
    contest = Contest(
        session,
        problem,
        random_inputs(signatures(session.model.inputs)),
        time.monotonic() + session.options.time_limit_s,
        MemoryBudget.of(session.graph, session.before_bytes, session.options.memory_limit_mb),
    )
    contest.enter_chosen(chosen, built)
    limit_s = max(contest.deadline - time.monotonic(), 0.0) / 2
    plans = _other_plans(chosen, problem, weighed, session.precision, limit_s)
    others = {
        name: plan_of(chosen, problem, decisions, name)
        for name, decisions in plans.items()
        if squared_error(decisions) < below
    }
    contest.enter(others)
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
    """Enter plans of the `narrowed` problem, each based on the times within all plans before it."""
    for number in range(1, REFINEMENTS + 1):
        if contest.is_over():
            return
        # Limits concern measured quantities, unknown in the race: `below` replaces them.
        priced = unlimited(contest.priced(narrowed))
        # Contenders may have precisions that a refined plan must not have.
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
    """True if a plan is better by :data:`GAIN` than each plan that was tried."""
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
    """Return the winner's model, with reasons, measurements and prediction errors in its plan."""
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
    """Log that a faster contender replaces the chosen plan."""
    own, theirs = winner.plan.measured[winner.name], winner.plan.measured[CHOSEN]
    if winner.name != CHOSEN and own.median_us < theirs.median_us:
        # Refinement often succeeds; a simple heuristic that beats the plan is unusual.
        level = logging.INFO if winner.name.startswith(REFINED) else logging.WARNING
        logger.log(
            level,
            "the plan %r is faster than the chosen one: %.1f us against %.1f us; it is kept",
            winner.name,
            own.median_us,
            theirs.median_us,
        )


def _other_plans(
    chosen: Plan,
    problem: PlanningProblem,
    weighed: PlanningProblem | None,
    mode: PrecisionMode,
    time_limit_s: float,
) -> dict[str, Mapping[SubgraphId, Decision]]:
    """List plans to race with `chosen`: by its prices, then of each stricter set of precisions.

    Either takes up to `time_limit_s` seconds.
    """
    stricter = () if mode.only_f32 else mode.stricter
    plans = contenders(weighed or problem, stricter, time_limit_s=time_limit_s)
    if weighed is not None:
        plans |= contenders(problem, mode.stricter, narrowed_alone=True, time_limit_s=time_limit_s)
    return {name: d for name, d in plans.items() if dict(d) != chosen.decisions}


def only_f32(problem: PlanningProblem) -> Mapping[SubgraphId, Decision]:
    """Find the best plan in f32 alone, as far as pins allow."""
    return best_with(problem, lambda _node, option: option.decision.precision in OWN)


def plan_of(
    chosen: Plan, problem: PlanningProblem, decisions: Mapping[SubgraphId, Decision], name: str
) -> Plan:
    """Make a plan of `decisions` to race with `chosen`; it does not explain its decisions."""
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
