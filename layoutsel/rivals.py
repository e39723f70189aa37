"""The chosen plan against its rivals: the fastest is kept, and its prediction is compared with what was measured.

Among the rivals are plans made anew of what the sub-graphs took within the others.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from layoutsel.attribution import residuals_of
from layoutsel.compiling import compiled, compiled_all
from layoutsel.planning import documents
from layoutsel.planning.alternatives import (
    best_with,
    precision_plans,
    single_plans,
    top_plans,
    unit_plans,
)
from layoutsel.planning.makespan import Makespan, schedule
from layoutsel.planning.plan import Plan, make_plan
from layoutsel.planning.problem import PlanningProblem
from layoutsel.planning.refine import Seen
from layoutsel.planning.residuals import attribute
from layoutsel.planning.solve import Solution, solve
from layoutsel.planning.trade_off import squared_error
from layoutsel.precision import OWN, PrecisionMode
from layoutsel.runtime.compiled import CompiledModel
from layoutsel.runtime.observe import observe
from layoutsel.runtime.race import race
from layoutsel.runtime.samples import random_inputs
from layoutsel.session import Session
from tvm_passes.decision import Decision, SubgraphId
from tvm_passes.errors import LayoutselError

logger = logging.getLogger(__name__)

TOP_PLANS = 2
"""Plans measured beside the chosen one…"""
UNIT_PLANS = 1
"""… the best of those that stay on one unit, as what crossing between units costs is the hardest to predict …"""
BASELINES = 3
"""… and single-decision baselines, the predicted best first."""
REFINED = "refined"
"""What plans are called that were made of what sub-graphs took within others, …"""
REFINEMENTS = 3
"""… how many there are at most, …"""
GAIN = 0.02
"""… and the share of the best one's time that each must promise to save."""
DROP_AFTER = 4
"""Turns of the race after which the clearly slower ones are left out."""
REFINE_LIMIT_S = 5.0
"""Time to solve for a refined plan."""
WATCH_S = 0.5
"""Time to watch a plan at work."""
TIE = 0.01
"""A rival must be faster than the chosen plan by more than this share of its time to replace it."""


@dataclass(frozen=True, kw_only=True)
class Contender:
    """A built plan."""

    name: str
    """``plan`` for the chosen one."""
    plan: Plan
    model: CompiledModel


def raced(
    session: Session,
    chosen: Plan,
    problem: PlanningProblem,
    weighed: PlanningProblem | None = None,
    built: CompiledModel | None = None,
    below: float = math.inf,
) -> list[Contender]:
    """Build `chosen` and its rivals, and race them; the fastest first, each with all that was measured.

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
    plans = {"plan": chosen}
    for name, decisions in _rivals(chosen, weighed or problem, session.precision).items():
        if squared_error(decisions) < below:
            plans[name] = plan_of(chosen, problem, decisions, name)
    models = {"plan": built} if built is not None else {}
    models |= compiled_all(session, {n: plan for n, plan in plans.items() if n not in models})
    inputs = random_inputs(models["plan"].inputs)
    kept = problem if weighed is None else _same_precisions(problem, chosen.decisions)
    built_plans = {name: plans[name] for name in models}
    for name, plan, model in _refined(session, kept, built_plans, models, inputs):
        plans[name], models[name] = plan, model
    calls = {name: rival.timed_call(inputs) for name, rival in models.items()}
    measured = race(calls, drop_after=DROP_AFTER)
    allowance = {name: 1 - TIE if name == "plan" else 1.0 for name in measured}
    ranked = sorted(measured, key=lambda name: measured[name].median_us * allowance[name])
    return [
        Contender(name=name, plan=replace(plans[name], measured=measured), model=models[name])
        for name in ranked
    ]


def _refined(
    session: Session,
    problem: PlanningProblem,
    plans: Mapping[str, Plan],
    models: Mapping[str, CompiledModel],
    inputs: Sequence[np.ndarray],
) -> Iterator[tuple[str, Plan, CompiledModel]]:
    """Plans, built, each made of what sub-graphs of `problem` took within all before it."""
    seen = Seen(problem, {one.id: one.structural_hash for one in session.graph.subgraphs})
    tried = [dict(plan.decisions) for plan in plans.values()]
    chosen = plans["plan"]
    # What is seen last stands: the better a plan, the more its successors will be like it.
    for name in sorted(plans, key=lambda name: -plans[name].cost_us):
        _watch(seen, plans[name], models[name], inputs)
    for number in range(1, REFINEMENTS + 1):
        priced = seen.priced()
        # Rivals may have precisions that a refined plan shall not.
        legal = [decisions for decisions in tried if priced.offers(decisions)]
        best_us = min(priced.cost(decisions).total_us for decisions in legal)
        found = solve(priced, time_limit_s=REFINE_LIMIT_S)
        if found.cost_us > (1 - GAIN) * best_us or dict(found.decisions) in tried:
            return
        tried.append(dict(found.decisions))
        name = f"{REFINED} {number}"
        plan = plan_of(chosen, problem, found.decisions, name)
        try:
            model = compiled(session, plan)
        except LayoutselError as error:
            logger.warning("the plan %r cannot be built: %s", name, error)
            return
        _watch(seen, plan, model, inputs)
        yield name, plan, model


def _watch(seen: Seen, plan: Plan, model: CompiledModel, inputs: Sequence[np.ndarray]) -> None:
    observed = observe(model, inputs, budget_s=WATCH_S)
    residuals = attribute(plan, observed, observed.whole_us)
    seen.add(one for one in residuals.subgraphs if one.id not in model.header["fallbacks"])


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
    if winner.name != "plan":
        solution = _solution(chosen, problem, plan.decisions)
        explained = session.explained(problem, solution, winner.name)
        plan = replace(
            explained,
            measured=plan.measured,
            trade_off=plan.trade_off,
            makespan=plan.makespan,
        )
    residuals = residuals_of(session, model, plan, random_inputs(model.inputs))
    model.header["plan"] = documents.to_json(replace(plan, residuals=residuals))
    return model


def announce(winner: Contender) -> None:
    """Say that another plan than the chosen one is kept, where it was faster."""
    own, theirs = winner.plan.measured[winner.name], winner.plan.measured["plan"]
    if winner.name != "plan" and own.median_us < theirs.median_us:
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
    chosen: Plan, problem: PlanningProblem, mode: PrecisionMode
) -> dict[str, Mapping[SubgraphId, Decision]]:
    alternatives = [
        *top_plans(problem, TOP_PLANS + 1),
        *unit_plans(problem)[:UNIT_PLANS],
        *single_plans(problem)[:BASELINES],
        *(() if mode.only_f32 else precision_plans(problem)),
    ]
    seen = [chosen.decisions]
    rivals = {}
    for alternative in alternatives:
        if dict(alternative.decisions) not in seen:
            seen.append(dict(alternative.decisions))
            rivals[alternative.name] = alternative.decisions
    return rivals


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
    makespan = chosen.makespan and Makespan.of(
        schedule(problem, decisions), chosen.makespan.bound_us
    )
    return replace(
        made,
        precision=chosen.precision,
        max_rel_error=chosen.max_rel_error,
        makespan=makespan,
    )


def _solution(
    chosen: Plan, problem: PlanningProblem, decisions: Mapping[SubgraphId, Decision]
) -> Solution:
    return Solution(
        decisions=decisions,
        cost_us=problem.cost(decisions).total_us,
        bound_us=chosen.bound_us,
        solver=chosen.solver,
        time_s=chosen.time_s,
    )
