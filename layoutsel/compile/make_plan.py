"""Planning of a session: measuring, choice of decisions, explanation."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from layoutsel.building.workloads import workload
from layoutsel.compile.cost_sources import CostSources
from layoutsel.compile.measuring import (
    cost_model,
    measure_copies,
    measure_unpredicted,
    measure_worthwhile,
)
from layoutsel.compile.pricing import Pricing, priced_by, warn_of_unknown_machine
from layoutsel.compile.versions import all_versions
from layoutsel.core.choices import PREDICTED
from layoutsel.core.precision import REL_ERROR
from layoutsel.cost.state import MachineState, machine_state
from layoutsel.planning.explain import explain
from layoutsel.planning.hybrid import (
    STABLE,
    WORTHWHILE,
    Tolerance,
    has_estimates,
    has_guesses,
    require_measured,
    without_estimates,
    without_guesses,
    without_interrupted,
)
from layoutsel.planning.new_plan import make_plan
from layoutsel.planning.objectives import decide, objective_of, timed
from layoutsel.planning.pins import apply_pins, check_offered, without_units
from layoutsel.planning.plan import Now, Plan, Uncertainty
from layoutsel.planning.problem import PlanningProblem
from layoutsel.planning.solve import Solution
from layoutsel.planning.value_of_information import (
    TIME_LIMIT_S,
    bound_within_spread,
    value_of_information,
)
from tvm_passes.errors import LayoutselError

if TYPE_CHECKING:
    from layoutsel.compile.offers import Offers
    from layoutsel.compile.session import Session
    from layoutsel.cost.measured import MeasuredCost
    from layoutsel.planning.prices import UnpricedBoundary

logger = logging.getLogger(__name__)

EXPLAIN_LIMIT_S, SPREAD_LIMIT_S = 10.0, 5.0
"""Time limits of explaining a plan, and of the bound under uncertain costs, seconds."""


def priced_problem(
    offers: Offers,
    cost: str = "learned",
    pins: Sequence[str] = (),
    measure_budget_s: float | None = None,
) -> PlanningProblem:
    """Price every candidate and boundary, and apply pins.

    Parameters
    ----------
    offers
        Candidates of the session.
    cost
        One of :data:`layoutsel.core.choices.COSTS`. With ``hybrid``, candidates whose uncertainty
        could change the plan are measured; with ``auto``, only if much is to be gained. With
        ``learned``, this happens only if the learned model has no data for some candidates, such as
        those on a device. Those of them that stay unmeasured are then left out.
    pins
        Decisions to honour, such as ``"conv2d_3f2a9c=cpu"``.
    measure_budget_s
        Time limit of these measurements, seconds; by default that of the mode.
    """
    session = offers.session
    check_offered(pins, session.precision)
    pins = without_units(pins, session.left_out)
    budget_s = session.precision.measure_budget_s if measure_budget_s is None else measure_budget_s
    if pins and cost == "measured":
        # Illegal pins are found before the measuring.
        priced_problem(offers, "roofline", pins, None)
    with cost_model(offers, cost) as model:
        if session.machine is not None:
            return _unmeasured(offers, model, cost, pins)
        if session.devices and cost != "roofline":
            measure_copies(offers, model)
        problem = apply_pins(priced_by(offers, model, cost), pins)
        if cost in PREDICTED:
            warn_of_unknown_machine(offers)
            is_unknown = has_estimates(problem, session.devices)
            tolerance = _tolerance(cost, is_unknown=is_unknown)
            if tolerance and (session.precision.only_f32 or is_unknown):
                problem = measure_worthwhile(offers, problem, model, budget_s, tolerance)
            tolerance = _tolerance(cost, is_unknown=has_guesses(problem))
            if tolerance and not session.precision.only_f32:
                measure_unpredicted(offers, problem, model, budget_s, tolerance)
                problem = without_guesses(apply_pins(priced_by(offers, model, cost), pins))
        if cost != "roofline":
            problem = without_estimates(problem, session.devices)
        return without_interrupted(problem)


def price_boundaries(
    offers: Offers, boundaries: Sequence[UnpricedBoundary], cost: str = "learned"
) -> list[float]:
    """Price boundaries that no plan of the session's problem has, microseconds, in order."""
    with cost_model(offers, cost) as model:
        return Pricing(offers, model, cost).boundaries(boundaries)


def _tolerance(cost: str, *, is_unknown: bool) -> Tolerance | None:
    """Return the expected loss at which measuring ends; None to measure nothing.

    `is_unknown` is true if the cost model has no data for some candidates.
    """
    if is_unknown or cost == "hybrid":
        return STABLE
    return WORTHWHILE if cost == "auto" else None


def _unmeasured(
    offers: Offers, model: MeasuredCost, cost: str, pins: Sequence[str]
) -> PlanningProblem:
    """Price the candidates for another machine by stored results, predictions or the roofline.

    Nothing can be measured, so guesses stay in the problem with their wide uncertainty.
    """
    problem = apply_pins(priced_by(offers, model, cost), pins)
    if cost in ("measured", "hybrid"):
        require_measured(problem, f"--cost {cost} for the machine {offers.costs.profile.name}")
    if cost in PREDICTED:
        warn_of_unknown_machine(offers)
    return problem


def best_plan(session: Session, problem: PlanningProblem, strategy: str = "joint") -> Plan:
    """Choose a decision for every sub-graph of `problem`, by its objective.

    The session's time limit counts from now. A plan that takes all of it is not explained.
    """
    deadline = time.monotonic() + session.options.time_limit_s
    usual_s = objective_of(problem.objective).time_limit_s
    answer = decide(problem, strategy=strategy, time_limit_s=_limit_s(usual_s, deadline))
    made = explained_plan(session, problem, answer.solution, strategy, deadline)
    return replace(made, trade_off=answer.trade_off, now=_now(session, made))


def _now(session: Session, plan: Plan) -> Now | None:
    """Predict the time of a plan at this machine's present speed; None for another machine."""
    if session.machine is not None:
        return None
    try:
        state = machine_state(CostSources(session).roofline.peaks)
    except LayoutselError as error:
        logger.warning("the machine's present speed is not known: %s", error)
        return None
    return Now(us=slowed_us(session, plan, state), compute=state.compute, memory=state.memory)


def slowed_us(session: Session, plan: Plan, state: MachineState) -> float:
    """Predict the time of a plan on this machine in `state`, microseconds.

    Boundaries count as waiting for memory, and work on devices as independent of the host's state.
    """
    roofline = CostSources(session).roofline
    us = state.slowed(plan.cost_us - sum(one.cost_us for one in plan.subgraphs), 1.0)
    for one in plan.subgraphs:
        work = workload(session.graph.by_id[one.id])
        share = roofline.memory_share(work, one.decision)
        is_host = one.decision.device.is_host
        us += state.slowed(one.cost_us, share) if is_host else one.cost_us
    return us


def explained_plan(
    session: Session,
    problem: PlanningProblem,
    solution: Solution,
    strategy: str,
    deadline: float = math.inf,
) -> Plan:
    """Make a plan of `solution` with `strategy` as its stated origin.

    It has no reasons if the `deadline` by :func:`time.monotonic`, seconds, has passed.
    """
    explanation = uncertainty = None
    if time.monotonic() < deadline:
        explanation = explain(
            problem, solution.decisions, time_limit_s=_limit_s(EXPLAIN_LIMIT_S, deadline)
        )
        uncertainty = _uncertainty(problem, solution, deadline)
    else:
        logger.warning(
            "no time is left to compare the plan with others: a longer limit (time_limit_s, "
            "--time-limit) explains it"
        )
    made = make_plan(
        problem,
        solution,
        strategy=strategy,
        machine=session.described.fingerprint,
        versions=all_versions(),
        threads=session.threads,
        score_cost_us=explanation.gains.score_us if explanation else None,
        explanation=explanation,
        uncertainty=uncertainty,
    )
    mode = session.precision
    return replace(made, precision=mode.name, max_rel_error=mode.limits.get(REL_ERROR))


def _uncertainty(problem: PlanningProblem, solution: Solution, deadline: float) -> Uncertainty:
    bound_us = bound_within_spread(problem, time_limit_s=_limit_s(SPREAD_LIMIT_S, deadline))
    compared = timed(objective_of(problem.objective).comparable(problem, solution.decisions))
    limit_s = _limit_s(TIME_LIMIT_S, deadline)
    return Uncertainty(
        bound_us=min(bound_us, solution.bound_us),
        loss_us=value_of_information(compared, solution.decisions, time_limit_s=limit_s).loss,
    )


def _limit_s(usual_s: float, deadline: float) -> float:
    """Return the time limit of a step: the usual one, but at most half of the time left."""
    return min(usual_s, max(deadline - time.monotonic(), 0.0) / 2)
