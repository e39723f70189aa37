"""Choice of the fastest plan within an error budget: plans are built from fast to exact."""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from layoutsel.compile.compiling import compiled
from layoutsel.compile.contenders import announce, crowned, plan_of, raced
from layoutsel.compile.contest import CHOSEN, Contender
from layoutsel.compile.make_plan import explained_plan
from layoutsel.compile.session import Session
from layoutsel.compile.verification import Reference, checks_of, note, reference_of, worst_error
from layoutsel.core.precision import F32, MODES
from layoutsel.device.checks import Check, require
from layoutsel.planning.plan import Plan
from layoutsel.planning.problem import PlanningProblem
from layoutsel.planning.trade_off import (
    TradeOff,
    Weighed,
    curve,
    most_exact,
    squared_error,
    weigh,
)
from layoutsel.runtime.compiled import CompiledModel
from tvm_passes.errors import BuildError

logger = logging.getLogger(__name__)


@dataclass
class _Search:
    """Plans of a trade-off, with the measured errors of those built so far."""

    session: Session
    """Session of the model."""
    problem: PlanningProblem
    """Problem of the plans."""
    plans: tuple[Weighed, ...]
    """Plans from the fastest to the most exact."""
    reference: Reference
    """Results to compare with."""
    errors: list[float | None] = field(default_factory=list)
    """Measured errors of the plans tried so far; None for a plan that cannot be built."""

    def checks(self, model: CompiledModel) -> list[Check]:
        """Measure `model` against the budget."""
        return checks_of(model, self.reference, self.session.precision.bound)

    def f32_checks(self, model: CompiledModel) -> list[Check]:
        """Measure `model` against the bound of f32."""
        checks = checks_of(model, self.reference, MODES[F32].bound)
        return [one.conceded() for one in checks]

    def fit(self, chosen: Plan) -> tuple[CompiledModel, bool]:
        """Build plans until one is within the budget.

        Returns
        -------
        tuple
            Model of the last plan that was built, and True if it is within the budget.
        """
        for weighed in self.plans:
            plan = plan_of(chosen, self.problem, weighed.solution.decisions, chosen.strategy)
            try:
                model = compiled(self.session, plan)
            except BuildError as error:
                if weighed is self.plans[-1]:
                    raise
                logger.warning("a plan of the trade-off cannot be built: %s", error)
                self.errors.append(None)
                continue
            checks = self.checks(model)
            self.errors.append(worst_error(checks))
            if all(one.passed for one in checks):
                return model, True
        return model, False

    @property
    def tried(self) -> tuple[Weighed, ...]:
        """Plans that were tried; the last one is kept."""
        return self.plans[: len(self.errors)]


def within_budget(
    session: Session,
    chosen: Plan,
    problem: PlanningProblem,
    plans: tuple[Weighed, ...],
    *,
    verify_speed: bool,
) -> CompiledModel:
    """Build the first of `plans` whose measured error is within the budget, else the last one.

    The plan of the result states the whole trade-off.

    Parameters
    ----------
    session
        Session of the model.
    chosen
        Plan to start from.
    problem
        Problem of the plans.
    plans
        Plans from the fastest to the most exact.
    verify_speed
        True to race the found plan with contenders, which must be within the budget as well.

    Raises
    ------
    VerificationError
        If no plan is within the budget, and the last one is not even as exact as f32 must be.
    """
    search = _Search(session, problem, plans, reference_of(session))
    model, fits = search.fit(chosen)
    found = search.tried[-1]
    if not fits:
        _warn_of_none(search)
        require(search.f32_checks(model))
    plan = explained_plan(session, problem, found.solution, chosen.strategy)
    contenders = [
        Contender(name=CHOSEN, plan=plan, build=partial(compiled, session, plan), built=model)
    ]
    if verify_speed:
        weighed = weigh(problem, found.weight_us) if fits else most_exact(problem)
        failed = min((other.squared_error for other in search.tried[:-1]), default=math.inf)
        contenders = raced(session, plan, problem, weighed, built=model, below=failed)
        announce(contenders[0])
    winner, checks = _first_within(search, contenders, fits=fits)
    points = _points(search, winner, checks, contenders)
    winner = replace(winner, plan=replace(winner.plan, trade_off=points))
    model = crowned(session, winner, plan, problem)
    note(model, checks)
    return model


def _warn_of_none(search: _Search) -> None:
    least = min(error for error in search.errors if error is not None)
    logger.warning(
        "no plan's error is within %.1e: the least of %d measured ones is %.1e; "
        "the most exact plan is kept",
        search.session.precision.tolerance,
        len(search.errors),
        least,
    )


def _first_within(
    search: _Search, contenders: Sequence[Contender], *, fits: bool
) -> tuple[Contender, list[Check]]:
    """First contender within the error budget; the chosen plan always is."""
    for contender in contenders:
        checks = search.checks(contender.model) if fits else search.f32_checks(contender.model)
        if contender.name == CHOSEN or all(one.passed for one in checks):
            return contender, checks
        logger.warning(
            "the plan %r is not exact enough: relative L2 error %.1e; the next one is taken",
            contender.name,
            worst_error(checks),
        )
        contender.retire()
    raise AssertionError("the chosen plan is among the contenders")


def _points(
    search: _Search,
    winner: Contender,
    checks: Sequence[Check],
    contenders: Sequence[Contender],
) -> tuple[TradeOff, ...]:
    """Complete the trade-off with all measurements.

    A winner that is not among its plans gets a point of its own.
    """
    times = [(other.plan.decisions, other.plan.measured.get(other.name)) for other in contenders]
    errors = [*search.errors, *[None] * (len(search.plans) - len(search.errors))]
    points = []
    for weighed, point, error in zip(search.plans, curve(search.plans, None), errors, strict=True):
        decisions = dict(weighed.solution.decisions)
        taken = next((time for theirs, time in times if theirs == decisions and time), None)
        is_chosen = decisions == winner.plan.decisions
        points.append(
            replace(
                point,
                chosen=is_chosen,
                measured_us=taken.median_us if taken else None,
                rel_l2_err=worst_error(checks) if is_chosen else error,
            )
        )
    if not any(point.chosen for point in points):
        points.append(_point_of(winner, checks))
    return tuple(sorted(points, key=lambda point: -point.error))


def _point_of(winner: Contender, checks: Sequence[Check]) -> TradeOff:
    measured = winner.plan.measured.get(winner.name)
    decisions = winner.plan.decisions
    return TradeOff(
        cost_us=winner.plan.cost_us,
        error=squared_error(decisions) ** 0.5,
        weight_us=0.0,
        precisions=dict(Counter(decision.precision for decision in decisions.values())),
        chosen=True,
        measured_us=measured.median_us if measured else None,
        rel_l2_err=worst_error(checks),
    )
