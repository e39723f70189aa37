"""From the options of the command line to a plan."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from layoutsel.cli.activity import Activity
from layoutsel.cli.options import COSTS, parse_names, parse_seconds, parse_shapes
from layoutsel.compile.fallback import check_fallback
from layoutsel.core.precision import precision_mode
from tvm_passes.errors import LayoutselError
from tvm_passes.limits import parse_limits

if TYPE_CHECKING:
    from layoutsel.compile.session import Session
    from layoutsel.planning.plan import Plan
    from layoutsel.planning.problem import PlanningProblem


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What the user asked for, as given."""

    model: str
    shapes: Sequence[str] | None = None
    units: str | None = None
    threads: int | None = None
    strategy: str = "joint"
    cost: str = "learned"
    measure_budget: str | None = None
    cost_model: Path | None = None
    pins: Sequence[str] | None = None
    precision: str = "f32"
    max_rel_error: float | None = None
    calib: Path | None = None
    cache: Path | None = None
    logs: Path | None = None
    fallback: str | None = None
    parallel: bool = False
    time_limit: str | None = None
    memory_limit: float | None = None
    machine: Path | None = None
    allow_external_links: bool = False
    import_limit: Sequence[str] | None = None

    def check(self) -> None:
        """Find what is wrong with the options before anything slow starts.

        Raises
        ------
        LayoutselError
            Names the option, what it got and what it expects.
        """
        from layoutsel.planning.pins import check_offered
        from layoutsel.planning.strategies import STRATEGIES

        if self.strategy not in STRATEGIES:
            raise LayoutselError(
                f"--strategy {self.strategy!r}: expected one of {', '.join(STRATEGIES)}"
            )
        if self.cost not in COSTS:
            raise LayoutselError(f"--cost {self.cost!r}: expected one of {', '.join(COSTS)}")
        self._measure_budget_s()
        check_fallback(self.fallback)
        check_offered(self.pins or (), precision_mode(self.precision, self.max_rel_error))
        parse_shapes(self.shapes)
        parse_names(self.units)
        parse_limits(self.import_limit)

    def _measure_budget_s(self) -> float | None:
        return None if self.measure_budget is None else parse_seconds(self.measure_budget)

    def open(self, activity: Activity) -> Session:
        """Import and partition the model."""
        self.check()
        activity.phase(f"importing {self.model}")
        from layoutsel.compile.session import TIME_LIMIT_S, Session

        return Session.open(
            self.model,
            shapes=parse_shapes(self.shapes),
            units=parse_names(self.units),
            threads=self.threads,
            precision=self.precision,
            max_rel_error=self.max_rel_error,
            calib=self.calib,
            cache=self.cache,
            progress=activity,
            cost_model=self.cost_model,
            logs=self.logs,
            fallback=self.fallback,
            parallel=self.parallel,
            time_limit_s=TIME_LIMIT_S
            if self.time_limit is None
            else parse_seconds(self.time_limit),
            memory_limit_mb=self.memory_limit,
            machine=self.machine,
            allow_external_links=self.allow_external_links,
            limits=parse_limits(self.import_limit),
        )

    def plan(self, session: Session, activity: Activity) -> tuple[PlanningProblem, Plan]:
        """Price the candidates and choose."""
        activity.phase("pricing candidates")
        problem = session.problem(self.cost, self.pins or (), self._measure_budget_s())
        activity.phase("planning")
        return problem, session.plan(problem, self.strategy)
