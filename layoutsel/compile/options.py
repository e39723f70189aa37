"""Choices that a caller may make about one model: one object from the command line to the session."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

from layoutsel.core.choices import check_cost, check_fallback
from layoutsel.core.precision import F32, REL_ERROR, PrecisionMode, precision_mode
from layoutsel.cost.measured import PricingProgress
from layoutsel.planning.objectives import objective_of
from layoutsel.planning.pins import check_offered
from layoutsel.planning.strategies import STRATEGIES
from layoutsel.planning.values import MAKESPAN, SUM, WITHIN_ERROR
from tvm_passes.errors import LayoutselError
from tvm_passes.limits import ImportLimits

TIME_LIMIT_S = 300.0
"""Default limit of racing, and of each step of verification, seconds."""

OnProgress: TypeAlias = Callable[[PricingProgress], None]


@dataclass(frozen=True, kw_only=True)
class Options:
    """Choices about importing, planning, building and verifying one model.

    Raises
    ------
    LayoutselError
        If a choice is not possible by itself or beside another; found before anything slow starts.
    """

    shapes: Mapping[str, tuple[int, ...]] | None = None
    """Shape of each input with a dynamic dimension."""
    units: Sequence[str] | None = None
    """Compute units to choose from; every available one where None."""
    threads: int | None = None
    """Threads that the model will run on; all cores of this process where None."""
    precision: str = F32
    """Name of the precision mode."""
    max_rel_error: float | None = None
    """Error budget of the mode ``auto``; the mode's own where None."""
    calib: Path | str | None = None
    """File of inputs that errors are measured on; seeded random inputs where None."""
    strategy: str = "joint"
    """One of :data:`layoutsel.planning.strategies.STRATEGIES`."""
    cost: str = "learned"
    """One of :data:`layoutsel.core.choices.COSTS`."""
    measure_budget_s: float | None = None
    """Maximum seconds of measuring before planning; the mode's own where None."""
    cost_model: Path | str | None = None
    """Folder of a learned cost model; the one of the package where None."""
    pins: Sequence[str] = ()
    """Decisions to honour, such as ``"conv_.*=onednn:NCHW16c"``."""
    cache: Path | str | None = None
    """File of measurements; a file in the user's cache folder where None."""
    logs: Path | str | None = None
    """Folder of tuning records; a folder in the user's cache folder where None."""
    machine: Path | str | None = None
    """File of another machine to plan for; nothing is measured or built then."""
    fallback: str | None = None
    """Unit that takes over from a missing or failing device; an error where None."""
    objective: str | None = None
    """Entry of :func:`layoutsel.planning.objectives.objectives`.

    Where None, the one that other options ask for.
    """
    parallel: bool = False
    """Whether to plan for the makespan, with devices and host at work at once, instead of the sum of times."""
    time_limit_s: float = TIME_LIMIT_S
    """Maximum seconds of racing, and of each step of verification."""
    memory_limit_mb: float | None = None
    """Maximum megabytes beyond the memory of the process before; a multiple of the weights where None."""
    verify: bool = True
    """Whether to compare results with a reference."""
    verify_speed: bool = True
    """Whether to race the plan with others, and keep the fastest."""
    allow_external_links: bool = False
    """Whether links among external data may lead out of the model's folder."""
    limits: ImportLimits | None = None
    """Limits of the import; the defaults where None."""
    progress: OnProgress | None = field(default=None, compare=False)
    """Called after every measurement."""

    def __post_init__(self) -> None:
        mode = self.mode
        if self.threads is not None and self.threads < 1:
            raise LayoutselError(f"got {self.threads} threads; expected at least 1")
        if self.strategy not in STRATEGIES:
            raise LayoutselError(
                f"strategy {self.strategy!r}: expected one of {', '.join(STRATEGIES)}"
            )
        check_cost(self.cost)
        check_fallback(self.fallback)
        check_offered(self.pins, mode)
        _check_positive("time_limit_s", self.time_limit_s)
        _check_positive("memory_limit_mb", self.memory_limit_mb)
        _ = self.objective_name

    @property
    def objective_name(self) -> str:
        """Name of the objective that the options ask for; the sum of costs where none does.

        Raises
        ------
        LayoutselError
            If they ask for two, for an unknown one, or for one whose limits they do not give.
        """
        return objective_for(self.objective, parallel=self.parallel, mode=self.mode)

    @property
    def mode(self) -> PrecisionMode:
        """Precisions that candidates may have, and the error that a model may have."""
        return precision_mode(self.precision, self.max_rel_error)


def objective_for(objective: str | None, *, parallel: bool, mode: PrecisionMode) -> str:
    """Name the objective that `objective`, ``--parallel`` and the precision mode ask for."""
    asked = {
        f"--objective {objective}": objective,
        "--parallel": MAKESPAN if parallel else None,
        f"--precision {mode.name}": WITHIN_ERROR if mode.limits else None,
    }
    named = {how: name for how, name in asked.items() if name is not None}
    if len(set(named.values())) > 1:
        got = " and ".join(f"{how} (objective {name})" for how, name in named.items())
        raise LayoutselError(f"got {got}; expected options that ask for one objective")
    name = next(iter(named.values()), SUM)
    _check_limits(name, mode)
    return name


_LIMITED_BY: Mapping[str, str] = {REL_ERROR: "--precision auto --max-rel-error 1e-3"}
"""Options that limit a quantity, by its name."""


def _check_limits(objective: str, mode: PrecisionMode) -> None:
    missing = [limit for limit in objective_of(objective).limits if limit not in mode.limits]
    if missing:
        how = " ".join(_LIMITED_BY[name] for name in missing if name in _LIMITED_BY)
        raise LayoutselError(
            f"objective {objective!r}: got no limit of {', '.join(missing)}; expected one"
            f"{f', such as {how}' if how else ''}"
        )


def _check_positive(name: str, limit: float | None) -> None:
    if limit is not None and not limit > 0:
        raise LayoutselError(f"{name}: got {limit:g}; expected a number above 0")
