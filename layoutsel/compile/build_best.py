"""Building of the delivered model from a plan: contenders are built, raced and verified."""

from __future__ import annotations

import gc
import logging
import time
from collections.abc import Iterator, Sequence
from functools import partial

from layoutsel.compile.budget import within_budget
from layoutsel.compile.compiling import compiled
from layoutsel.compile.contenders import announce, crowned, only_f32, plan_of, raced
from layoutsel.compile.contest import CHOSEN, Contender
from layoutsel.compile.session import Session
from layoutsel.compile.verification import Reference, checks_of, note, reference_of, worst_excess
from layoutsel.core.precision import OWN, check_budget
from layoutsel.device.checks import (
    ADVICE,
    Check,
    VerificationError,
    conceded,
    concessions,
    require,
)
from layoutsel.planning.alternatives import single_plans
from layoutsel.planning.contenders import within
from layoutsel.planning.objectives import objective_of
from layoutsel.planning.plan import Plan
from layoutsel.planning.problem import PlanningProblem
from layoutsel.runtime.compiled import CompiledModel
from tvm_passes.decision import Decision, SubgraphId
from tvm_passes.errors import BuildError
from tvm_passes.freed_memory import give_back

logger = logging.getLogger(__name__)

_TRY = ". Try a more exact --precision"
"""Advice for a model whose error is too large."""

Decisions = dict[SubgraphId, Decision]
"""Decision of each sub-graph."""


def finish(
    session: Session,
    chosen: Plan,
    problem: PlanningProblem,
    *,
    verify: bool = True,
    verify_speed: bool = True,
) -> CompiledModel:
    """Build `chosen`, or a faster contender, and verify the result.

    The result is the first of these plans whose error is within the tolerance of the precision
    mode: the raced plans, the best first; the chosen plan; the best plan in f32; plans with a
    single decision for all sub-graphs. If the objective limits a measured quantity, plans are
    built until one keeps the limit; see :func:`~layoutsel.compile.budget.within_budget`.

    Parameters
    ----------
    session
        Session of the model.
    chosen
        Plan to build.
    problem
        Problem of the plan, from which contenders are made.
    verify
        True to compare results with a reference.
    verify_speed
        True to race the plan with contenders.

    Raises
    ------
    VerificationError
        If no plan is exact enough.
    """
    gc.collect()  # frees candidates and cost models, which only pricing needed
    give_back()
    check_budget(session.precision, verify=verify)
    attempts = objective_of(problem.objective).attempts
    if attempts is not None:
        plans = attempts(problem, chosen.strategy)
        return within_budget(session, chosen, problem, plans, verify_speed=verify_speed)
    contenders = _contenders(session, chosen, problem, verify_speed=verify_speed)
    reference = reference_of(session) if verify else None
    winner, checks = _first_exact(session, contenders, reference)
    model = crowned(session, winner, chosen, problem)
    if verify:
        note(model, checks)
    return model


def as_planned(session: Session, chosen: Plan, *, verify: bool = True) -> CompiledModel:
    """Build `chosen` without contenders.

    Raises
    ------
    VerificationError
        If it is not exact enough.
    """
    model = compiled(session, chosen)
    if verify:
        checks = _conceded(_checks(session, model, reference_of(session)))
        note(model, checks)
        _require(session, checks)
    return model


def _contenders(
    session: Session, chosen: Plan, problem: PlanningProblem, *, verify_speed: bool
) -> Iterator[Contender]:
    """Yield contenders in order of preference; those that were not raced are built on demand."""
    tried = []
    if verify_speed:
        ranked = raced(session, chosen, problem)
        announce(ranked[0])
        for contender in ranked:
            tried.append(contender.plan.decisions)
            yield contender
    for name, decisions in _unraced(session, chosen, problem):
        if decisions not in tried:
            tried.append(decisions)
            plan = plan_of(chosen, problem, decisions, name) if name != CHOSEN else chosen
            yield Contender(name=name, plan=plan, build=partial(compiled, session, plan))


def _unraced(
    session: Session, chosen: Plan, problem: PlanningProblem
) -> Iterator[tuple[str, Decisions]]:
    """Yield the chosen plan, the best one in f32, and those of single decisions, f32 first."""
    yield CHOSEN, dict(chosen.decisions)
    if not session.precision.only_f32:
        yield "only f32", dict(only_f32(problem))
    for alternative in single_plans(within(problem, OWN)):
        yield alternative.name, dict(alternative.decisions)


def _first_exact(
    session: Session, contenders: Iterator[Contender], reference: Reference | None
) -> tuple[Contender, list[Check]]:
    """Find the first contender whose error is within the tolerance of the mode.

    Without one, the result is the most exact contender, if f32 arithmetic can hardly be more exact
    for this network.

    Raises
    ------
    VerificationError
        If there is no such contender either; the message states the error of the first one.
    """
    failure: VerificationError | BuildError | None = None
    attained: list[tuple[Contender, list[Check]]] = []
    deadline = time.monotonic() + session.options.time_limit_s
    for contender in contenders:
        if reference is None:
            return contender, []
        if failure is not None and time.monotonic() >= deadline:
            break
        try:
            checks = _checks(session, contender.model, reference)
            if all(one.is_attained for one in checks):
                attained.append((contender, checks))
            _require(session, checks)
        except (VerificationError, BuildError) as error:
            if failure is None and isinstance(error, BuildError):
                raise
            failure = failure or error
            logger.warning("the plan %r is not exact enough: %s", contender.name, error)
            contender.retire()
            continue
        return contender, checks
    assert failure is not None, "there is at least one contender"
    if not attained:
        raise failure
    contender, checks = min(attained, key=lambda one: worst_excess(one[1]))
    return contender, _conceded(checks)


def _conceded(checks: Sequence[Check]) -> list[Check]:
    """Apply :func:`layoutsel.device.checks.conceded` and log its warnings."""
    for warning in concessions(checks):
        logger.warning("%s", warning)
    return conceded(checks)


def _checks(session: Session, model: CompiledModel, reference: Reference) -> list[Check]:
    return checks_of(model, reference, session.precision.bound)


def _require(session: Session, checks: Sequence[Check]) -> None:
    require(checks, ADVICE if session.precision.only_f32 else _TRY)
