"""Options of compiling one model: one object from the command line to the session."""

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
"""Default limit of planning, of racing, and of each step of verification, seconds."""

OnProgress: TypeAlias = Callable[[PricingProgress], None]
"""Function that is called after every measurement."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """Options of importing, planning, building and verifying one model.

    Raises
    ------
    LayoutselError
        If an option is invalid by itself or in combination; checked before any slow step.
    """

    shapes: Mapping[str, tuple[int, ...]] | None = None
    """Shape of each input with a dynamic dimension."""
    units: Sequence[str] | None = None
    """Compute units to choose from; None for all available ones."""
    threads: int | None = None
    """Number of threads that will run the model; None for all cores of this process."""
    precision: str = F32
    """Name of the precision mode."""
    max_rel_error: float | None = None
    """Error budget of the mode ``auto``; None for the mode's default."""
    calib: Path | str | None = None
    """File of inputs for measuring errors; None for seeded random inputs."""
    strategy: str = "joint"
    """One of :data:`layoutsel.planning.strategies.STRATEGIES`."""
    cost: str = "learned"
    """One of :data:`layoutsel.core.choices.COSTS`."""
    measure_budget_s: float | None = None
    """Time limit of measuring before planning, seconds; None for the mode's default."""
    cost_model: Path | str | None = None
    """Folder of a learned cost model; None for the one of the package."""
    calibrate: bool = True
    """True to adapt the cost model before the first compilation on a machine unknown to it."""
    pins: Sequence[str] = ()
    """Decisions to honour, such as ``"conv_.*=onednn:NCHW16c"``."""
    cache: Path | str | None = None
    """File of measurements; None for a file in the user's cache folder."""
    logs: Path | str | None = None
    """Folder of tuning records; None for a folder in the user's cache folder."""
    machine: Path | str | None = None
    """File of another machine to plan for; nothing is then measured or built."""
    fallback: str | None = None
    """Unit that replaces a missing or failing device; None for an error."""
    objective: str | None = None
    """Entry of :func:`layoutsel.planning.objectives.objectives`.

    None for the objective that other options imply.
    """
    parallel: bool = False
    """True to plan for the makespan, with devices and host at work concurrently."""
    time_limit_s: float = TIME_LIMIT_S
    """Time limit of planning, of racing, and of each step of verification, seconds.

    Planning begins after the candidates are priced.
    """
    memory_limit_mb: float | None = None
    """Maximum megabytes beyond the memory before the import; None for a multiple of the weights."""
    verify: bool = True
    """True to compare results with a reference."""
    verify_speed: bool = True
    """True to race the plan with contenders, and keep the fastest."""
    allow_external_links: bool = False
    """True to follow links among external data out of the model's folder."""
    limits: ImportLimits | None = None
    """Limits of the import; None for the defaults."""
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
        """Name of the objective that the options imply; by default the sum of costs.

        Raises
        ------
        LayoutselError
            If they imply two objectives, an unknown one, or one whose limits are missing.
        """
        return objective_for(self.objective, parallel=self.parallel, mode=self.mode)

    @property
    def mode(self) -> PrecisionMode:
        """Precisions that candidates may have, and the maximum error of the model."""
        return precision_mode(self.precision, self.max_rel_error)


def objective_for(objective: str | None, *, parallel: bool, mode: PrecisionMode) -> str:
    """Return the objective that `objective`, ``--parallel`` and the precision mode imply.

    Raises
    ------
    LayoutselError
        If they imply two objectives, an unknown one, or one whose limits are missing.
    """
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
