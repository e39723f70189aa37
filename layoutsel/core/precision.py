"""How exact a model shall be: the modes of ``--precision``, in one table. Imports nothing that takes time."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

from tvm_passes.errors import LayoutselError

F32, SPLIT_BF16, BF16, INT8 = "f32", "split-bf16", "bf16", "int8"

OWN = (F32, INT8)
"""A model's own arithmetic, offered in every mode: the integers are those of a quantised model."""

LOCAL_ERRORS: Mapping[str, float] = {F32: 1e-7, INT8: 1e-7, SPLIT_BF16: 5e-6, BF16: 2e-3}
"""Relative L2 error that one sub-graph adds, by precision of its decision: some one rounding of its result. A bfloat16
keeps 8 bits of the significand, a pair of them 16."""

SHARE = 1 / 32
"""Part of a mode's tolerance that the rounding of one sensitive sub-graph may take up; with more, a last product in bfloat16
would have results twice as inexact as those of other engines in bfloat16."""

DEFAULT_BUDGET = 1e-3
"""Relative L2 error that ``auto`` allows where nothing else is said."""


REL_ERROR = "rel_error"
"""Limit of a plan: largest predicted relative L2 error."""


@dataclass(frozen=True, kw_only=True)
class ErrorBound:
    """Largest relative L2 error of an output."""

    error: float
    """Relative L2 error."""
    is_strict: bool = False
    """True if it holds as it stands; else softmaxes, and uncertain references, widen it."""

    def with_own(self, own_error: float) -> float:
        """Widen the bound to the error of the model's own arithmetic, unless it is strict."""
        return self.error if self.is_strict else max(self.error, own_error)


@dataclass(frozen=True, kw_only=True)
class PrecisionMode:
    """What a mode offers, and what it promises."""

    name: str
    precisions: tuple[str, ...]
    """That candidates may have, the most exact first; beside them, :data:`OWN`."""
    tolerance: float
    """Relative L2 error that an output, and the logits behind it, may have."""
    measure_budget_s: float = 60.0
    """Seconds that measuring takes at most where nothing else is said: no cost model knows what is not f32."""
    for_sensitive: tuple[str, ...] = ()
    """That sensitive sub-graphs may have besides: between f32 and what is too inexact for them."""
    is_budget: bool = False
    """True if the tolerance is the user's, and holds as it stands: the fastest plan within it is looked for."""

    @property
    def limits(self) -> Mapping[str, float]:
        """Limits that plans must keep by prediction, by name."""
        return {REL_ERROR: self.tolerance} if self.is_budget else {}

    @property
    def bound(self) -> ErrorBound:
        """Bound on the measured error of an output."""
        return ErrorBound(error=self.tolerance, is_strict=self.is_budget)

    @property
    def only_f32(self) -> bool:
        """True if all is as if there were no other precision."""
        return self.precisions == (F32,)

    @property
    def stricter(self) -> tuple[tuple[str, ...], ...]:
        """The sets of precisions that are more exact than all that it offers, the most exact first."""
        return tuple((*OWN, *self.precisions[1:end]) for end in range(1, len(self.precisions)))

    def offers(self, precision: str, felt: float = 0.0) -> bool:
        """True if a sub-graph may be computed in `precision` whose own rounding the outputs may feel `felt` times.

        Any may where the user set the tolerance; else one sub-graph may take :data:`SHARE` of it.
        """
        if precision in OWN:
            return True
        if precision not in self.precisions and not (felt and precision in self.for_sensitive):
            return False
        return self.is_budget or felt * LOCAL_ERRORS[precision] <= SHARE * self.tolerance

    @property
    def offered(self) -> tuple[str, ...]:
        """All precisions that some sub-graph may be computed in."""
        return tuple(dict.fromkeys((*self.precisions, *self.for_sensitive, *OWN)))


MODES: Mapping[str, PrecisionMode] = {
    mode.name: mode
    for mode in (
        PrecisionMode(name="f32", precisions=(F32,), tolerance=1e-5, measure_budget_s=20.0),
        PrecisionMode(name="f32-grade", precisions=(F32, SPLIT_BF16), tolerance=2e-5),
        # Some ten of bfloat16's rounding errors: what deep networks of independent roundings stay below.
        PrecisionMode(
            name="bf16", precisions=(F32, BF16), tolerance=3e-2, for_sensitive=(SPLIT_BF16,)
        ),
        PrecisionMode(
            name="auto",
            precisions=(F32, SPLIT_BF16, BF16),
            tolerance=DEFAULT_BUDGET,
            is_budget=True,
        ),
    )
}
"""By name, as ``--precision`` takes them."""


def precision_mode(name: str, max_rel_error: float | None = None) -> PrecisionMode:
    """The mode called `name`, with its budget.

    Raises
    ------
    LayoutselError
        If there is no such mode, or it takes no budget, or the budget is no positive number.
    """
    if name not in MODES:
        raise LayoutselError(f"unknown precision {name!r}: expected one of {', '.join(MODES)}")
    mode = MODES[name]
    if max_rel_error is None:
        return mode
    if not mode.is_budget:
        raise LayoutselError(
            f"a largest relative error is given with precision {name!r}: expected it with 'auto' alone "
            f"(--precision auto --max-rel-error 1e-3)"
        )
    if not (math.isfinite(max_rel_error) and max_rel_error > 0):
        raise LayoutselError(
            f"got a largest relative error of {max_rel_error:g}; expected a number above 0, such as 1e-3"
        )
    return replace(mode, tolerance=max_rel_error)


def check_budget(mode: PrecisionMode, *, verify: bool) -> None:
    """Refuse to keep a budget of error without measuring any.

    Raises
    ------
    LayoutselError
        If `mode` has one, and nothing will be verified.
    """
    if mode.is_budget and not verify:
        raise LayoutselError(
            f"precision {mode.name!r} keeps a budget of measured error: it needs verification, leave out --no-verify"
        )
