"""Sessions and plans from options of the command line."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from layoutsel.cli.activity import Activity
from layoutsel.cli.options import parse_names, parse_seconds, parse_shapes
from tvm_passes.limits import parse_limits

if TYPE_CHECKING:
    from layoutsel.compile.options import Options
    from layoutsel.compile.session import Session
    from layoutsel.planning.plan import Plan
    from layoutsel.planning.problem import PlanningProblem


def options_of(
    *,
    shape: Sequence[str] | None = None,
    units: str | None = None,
    pin: Sequence[str] | None = None,
    measure_budget: str | None = None,
    time_limit: str | None = None,
    memory_limit: float | None = None,
    import_limit: Sequence[str] | None = None,
    **others: Any,
) -> Options:
    """Parse the options of a command.

    Parameters
    ----------
    shape, units, pin, measure_budget, time_limit, memory_limit, import_limit
        Options as given on the command line.
    **others
        Fields of :class:`Options` that need no parsing.

    Raises
    ------
    LayoutselError
        Names the option, the value and the legal values.
    """
    from layoutsel.compile.options import TIME_LIMIT_S, Options

    return Options(
        shapes=parse_shapes(shape),
        units=parse_names(units),
        pins=tuple(pin or ()),
        measure_budget_s=None if measure_budget is None else parse_seconds(measure_budget),
        time_limit_s=TIME_LIMIT_S if time_limit is None else parse_seconds(time_limit),
        memory_limit_mb=memory_limit,
        limits=parse_limits(import_limit),
        **others,
    )


def opened(model: str, options: Options, activity: Activity) -> Session:
    """Import and partition a model."""
    activity.phase(f"importing {model}")
    from layoutsel.compile.session import Session

    return Session.open(model, options, progress=activity)


def planned(session: Session, activity: Activity) -> tuple[PlanningProblem, Plan]:
    """Price the candidates and make the plan."""
    from layoutsel.compile.generic import offered
    from layoutsel.compile.make_plan import best_plan, priced_problem

    options = session.options
    activity.phase("pricing candidates")
    problem = priced_problem(offered(session), options.cost, options.pins, options.measure_budget_s)
    activity.phase("planning")
    return problem, best_plan(session, problem, options.strategy)
