"""From a plan to the model that is handed over: built, raced, its error measured."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from functools import partial

from layoutsel.budget import within_budget
from layoutsel.compiling import compiled
from layoutsel.contest import CHOSEN, Contender
from layoutsel.generic import announce_generic
from layoutsel.planning.plan import Plan
from layoutsel.planning.problem import PlanningProblem
from layoutsel.precision import check_budget
from layoutsel.rivals import announce, crowned, only_f32, plan_of, raced
from layoutsel.runtime.compiled import CompiledModel
from layoutsel.runtime.verify import ADVICE, Check, VerificationError, require
from layoutsel.session import Session
from layoutsel.verification import Reference, checks_of, note, reference_of

logger = logging.getLogger(__name__)

_TRY = ". Try a more exact --precision"
"""What to do about a model that is too inexact."""


def finish(
    session: Session,
    chosen: Plan,
    problem: PlanningProblem,
    *,
    verify: bool = True,
    verify_speed: bool = True,
) -> CompiledModel:
    """Build `chosen`, or whichever of its rivals in `problem` turns out faster; verify what is handed over.

    A plan whose error is too large gives way to the next one, but for f32's: that one is wrong. With a budget of error,
    the fastest plan is looked for whose measured error is within.

    Raises
    ------
    VerificationError
        If no plan is exact enough.
    """
    announce_generic(session)
    if session.precision.is_budget:
        check_budget(session.precision, verify=verify)
        return within_budget(session, chosen, problem, verify_speed=verify_speed)
    contenders = _contenders(session, chosen, problem, verify_speed=verify_speed)
    reference = reference_of(session) if verify else None
    winner, checks = _first_exact(session, contenders, reference)
    model = crowned(session, winner, chosen, problem)
    if verify:
        note(model, checks)
    return model


def as_planned(session: Session, chosen: Plan, *, verify: bool = True) -> CompiledModel:
    """Build `chosen` as it is; raises :class:`VerificationError` if it is not exact enough."""
    announce_generic(session)
    model = compiled(session, chosen)
    if verify:
        checks = _checks(session, model, reference_of(session))
        note(model, checks)
        _require(session, checks)
    return model


def _contenders(
    session: Session, chosen: Plan, problem: PlanningProblem, *, verify_speed: bool
) -> Iterator[Contender]:
    """Built plans in the order in which they shall be kept; f32's has one, the fastest."""
    if verify_speed:
        ranked = raced(session, chosen, problem)
        announce(ranked[0])
        yield from ranked[:1] if session.precision.only_f32 else ranked
        return
    yield Contender(name=CHOSEN, plan=chosen, build=partial(compiled, session, chosen))
    decisions = only_f32(problem)
    if not session.precision.only_f32 and dict(decisions) != chosen.decisions:
        plan = plan_of(chosen, problem, decisions, "only f32")
        yield Contender(name="only f32", plan=plan, build=partial(compiled, session, plan))


def _first_exact(
    session: Session, contenders: Iterator[Contender], reference: Reference | None
) -> tuple[Contender, list[Check]]:
    """The first of `contenders` whose error is within the mode's tolerance."""
    failure: VerificationError | None = None
    for contender in contenders:
        if reference is None:
            return contender, []
        checks = _checks(session, contender.model, reference)
        try:
            _require(session, checks)
        except VerificationError as error:
            failure = error
            if not session.precision.only_f32:
                logger.warning("the plan %r is not exact enough: %s", contender.name, error)
                contender.retire()
            continue
        return contender, checks
    assert failure is not None, "there is at least one contender"
    raise failure


def _checks(session: Session, model: CompiledModel, reference: Reference) -> list[Check]:
    mode = session.precision
    return checks_of(model, reference, mode.tolerance, is_budget=mode.is_budget)


def _require(session: Session, checks: Sequence[Check]) -> None:
    require(checks, ADVICE if session.precision.only_f32 else _TRY)
