"""Precision modes of ``--precision``, in one table; imports nothing slow."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

from tvm_passes.errors import LayoutselError
from tvm_passes.precisions import PRECISIONS, own_precisions

F32, SPLIT_BF16, BF16, INT8 = "f32", "split-bf16", "bf16", "int8"

OWN = tuple(precision.name for precision in own_precisions() if precision.is_own)
"""A model's own arithmetic, offered in every mode: the integers are those of a quantised model."""

SHARE = 1 / 32
"""Part of a mode's tolerance that the rounding of one sensitive sub-graph may use.
With a larger share, a last product in bfloat16 would double other engines' error."""

DEFAULT_BUDGET = 1e-3
"""Relative L2 error that ``auto`` allows by default."""


REL_ERROR = "rel_error"
"""Name of the limit on a plan's predicted relative L2 error."""


@dataclass(frozen=True, kw_only=True)
class ErrorBound:
    """Largest relative L2 error of an output."""

    error: float
    """Relative L2 error."""
    is_strict: bool = False
    """True for a fixed bound; False for one that softmaxes and inexact references widen."""

    def with_own(self, own_error: float) -> float:
        """Widen the bound to the error of the model's own arithmetic, unless it is strict."""
        return self.error if self.is_strict else max(self.error, own_error)


@dataclass(frozen=True, kw_only=True)
class PrecisionMode:
    """Offered precisions and promised accuracy of one ``--precision`` mode."""

    name: str
    """Name on the command line."""
    precisions: tuple[str, ...]
    """Precisions of candidates, most exact first; every mode offers :data:`OWN` as well."""
    tolerance: float
    """Largest relative L2 error of an output and of the logits that it is computed from."""
    measure_budget_s: float = 60.0
    """Default time limit for measuring, seconds. Cost models are reliable only for f32."""
    for_sensitive: tuple[str, ...] = ()
    """Further precisions for sensitive sub-graphs, where those of the mode are too inexact."""
    is_budget: bool = False
    """True if the user sets the tolerance; the planner then seeks the fastest plan within it."""

    @property
    def limits(self) -> Mapping[str, float]:
        """Limits on predicted quantities of a plan, by name."""
        return {REL_ERROR: self.tolerance} if self.is_budget else {}

    @property
    def bound(self) -> ErrorBound:
        """Bound on the measured error of an output."""
        return ErrorBound(error=self.tolerance, is_strict=self.is_budget)

    @property
    def only_f32(self) -> bool:
        """True if f32 is the only floating-point precision."""
        return self.precisions == (F32,)

    @property
    def stricter(self) -> tuple[tuple[str, ...], ...]:
        """Subsets of the offered precisions that leave out the least exact, most exact first."""
        return tuple((*OWN, *self.precisions[1:end]) for end in range(1, len(self.precisions)))

    def offers(self, precision: str, amplification: float = 0.0) -> bool:
        """True if a sub-graph may be computed in `precision`.

        Parameters
        ----------
        precision
            Precision of the candidate.
        amplification
            Error of the outputs per rounding error of this sub-graph; 0 if it is not sensitive.
            In a mode without a budget, one sub-graph may use :data:`SHARE` of the tolerance.
        """
        if precision in OWN:
            return True
        is_for_sensitive = amplification > 0 and precision in self.for_sensitive
        if precision not in self.precisions and not is_for_sensitive:
            return False
        return self.is_budget or amplification * local_error(precision) <= SHARE * self.tolerance

    @property
    def offered(self) -> tuple[str, ...]:
        """All precisions that at least one kind of sub-graph may use."""
        return tuple(dict.fromkeys((*self.precisions, *self.for_sensitive, *OWN)))


MODES: Mapping[str, PrecisionMode] = {
    mode.name: mode
    for mode in (
        PrecisionMode(name="f32", precisions=(F32,), tolerance=1e-5, measure_budget_s=20.0),
        PrecisionMode(name="f32-grade", precisions=(F32, SPLIT_BF16), tolerance=2e-5),
        # Ten times bfloat16's rounding error: deep networks of independent roundings stay below.
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
"""Built-in precision modes by name, as ``--precision`` takes them."""


def all_modes() -> Mapping[str, PrecisionMode]:
    """Built-in modes, then a mode for each precision of another package, by name.

    Such a mode offers f32 and the precision, with the tolerance that the precision's entry states.
    """
    others = {
        entry.name: PrecisionMode(
            name=entry.name, precisions=(F32, entry.name), tolerance=entry.tolerance
        )
        for entry in PRECISIONS.values()
        if entry.tolerance is not None
    }
    return {**MODES, **{name: mode for name, mode in others.items() if name not in MODES}}


def local_error(precision: str) -> float:
    """Relative L2 error that a sub-graph in a precision adds: about one rounding of its result."""
    return PRECISIONS.find(precision).local_error


def relative_bytes(precision: str) -> float:
    """Bytes of a tensor in a precision relative to f32; 1 if its package is not installed."""
    entry = PRECISIONS.get(precision)
    return entry.relative_bytes if entry else 1.0


def precision_mode(name: str, max_rel_error: float | None = None) -> PrecisionMode:
    """Look up a mode, with the user's error budget if one is given.

    Parameters
    ----------
    name
        A key of :data:`MODES`.
    max_rel_error
        Largest relative L2 error, for ``auto`` only; the mode's own tolerance if None.

    Raises
    ------
    LayoutselError
        If the mode is unknown or takes no budget, or the budget is not a positive number.
    """
    modes = MODES if name in MODES else all_modes()
    if name not in modes:
        raise LayoutselError(f"unknown precision {name!r}: expected one of {', '.join(modes)}")
    mode = modes[name]
    if max_rel_error is None:
        return mode
    if not mode.is_budget:
        raise LayoutselError(
            f"got a largest relative error with precision {name!r}; expected it with 'auto' alone "
            f"(--precision auto --max-rel-error 1e-3)"
        )
    if not (math.isfinite(max_rel_error) and max_rel_error > 0):
        raise LayoutselError(
            f"got a largest relative error of {max_rel_error:g}; expected a number above 0, "
            f"such as 1e-3"
        )
    return replace(mode, tolerance=max_rel_error)


def check_budget(mode: PrecisionMode, *, verify: bool) -> None:
    """Reject an error budget without verification.

    Raises
    ------
    LayoutselError
        If `mode` has a budget and `verify` is False.
    """
    if mode.is_budget and not verify:
        raise LayoutselError(
            f"precision {mode.name!r} keeps a budget of measured error, which needs verification: "
            f"leave out --no-verify"
        )
