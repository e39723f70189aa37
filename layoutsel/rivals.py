"""The chosen plan against its rivals: the fastest is kept, and its prediction is compared with what was measured."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace

from layoutsel.attribution import residuals_of
from layoutsel.compiling import compiled_all
from layoutsel.planning import documents
from layoutsel.planning.alternatives import single_plans, top_plans, unit_plans
from layoutsel.planning.plan import Plan, make_plan
from layoutsel.planning.problem import PlanningProblem
from layoutsel.planning.solve import Solution
from layoutsel.runtime.compiled import CompiledModel
from layoutsel.runtime.race import race
from layoutsel.runtime.samples import random_inputs
from layoutsel.session import Session
from tvm_passes.decision import Decision, SubgraphId

logger = logging.getLogger(__name__)

TOP_PLANS = 2
"""Plans measured beside the chosen one…"""
UNIT_PLANS = 1
"""… the best of those that stay on one unit, as what crossing between units costs is the hardest to predict …"""
BASELINES = 3
"""… and single-decision baselines, the predicted best first."""
DROP_AFTER = 4
"""Turns of the race after which the clearly slower ones are left out."""
TIE = 0.01
"""A rival must be faster than the chosen plan by more than this share of its time to replace it."""


def fastest(session: Session, chosen: Plan, problem: PlanningProblem) -> CompiledModel:
    """Build `chosen` and its rivals, and race them; the winner holds what was measured and where it was mispredicted."""
    plans = {"plan": chosen}
    for name, decisions in _rivals(chosen, problem).items():
        plans[name] = _plan_of(chosen, problem, decisions, name)
    models = compiled_all(session, plans)
    inputs = random_inputs(models["plan"].inputs)
    calls = {name: rival.timed_call(inputs) for name, rival in models.items()}
    measured = race(calls, drop_after=DROP_AFTER)
    winner = min(measured, key=lambda name: measured[name].median_us)
    if measured[winner].median_us > (1 - TIE) * measured["plan"].median_us:
        winner = "plan"
    if winner != "plan":
        logger.warning(
            "the plan %r is faster than the chosen one: %.1f us against %.1f us; it is kept",
            winner,
            measured[winner].median_us,
            measured["plan"].median_us,
        )
        solution = _solution(chosen, problem, plans[winner].decisions)
        plans[winner] = session.explained(problem, solution, winner)
    model, plan = models[winner], replace(plans[winner], measured=measured)
    residuals = residuals_of(session, model, plan, inputs)
    model.header["plan"] = documents.to_json(replace(plan, residuals=residuals))
    return model


def _rivals(chosen: Plan, problem: PlanningProblem) -> dict[str, Mapping[SubgraphId, Decision]]:
    alternatives = [
        *top_plans(problem, TOP_PLANS + 1),
        *unit_plans(problem)[:UNIT_PLANS],
        *single_plans(problem)[:BASELINES],
    ]
    seen = [chosen.decisions]
    rivals = {}
    for alternative in alternatives:
        if dict(alternative.decisions) not in seen:
            seen.append(dict(alternative.decisions))
            rivals[alternative.name] = alternative.decisions
    return rivals


def _plan_of(
    chosen: Plan, problem: PlanningProblem, decisions: Mapping[SubgraphId, Decision], name: str
) -> Plan:
    return make_plan(
        problem,
        _solution(chosen, problem, decisions),
        strategy=name,
        machine=chosen.machine,
        versions=chosen.versions,
        threads=chosen.threads,
        score_cost_us=chosen.score_cost_us,
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
