"""Verdict on an output's error against its reference; the same on a host and on a device."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from tvm_passes.errors import LayoutselError

SPREAD = 4.0
"""Factor between the reference engine's own error and the error that a model is allowed."""
ADVICE = ". Accept more with --precision auto --max-rel-error, and report it"
"""Advice for a model without a sufficiently exact plan in f32."""


class VerificationError(LayoutselError):
    """A compiled model whose results differ from the reference."""


@dataclass(frozen=True, kw_only=True)
class Check:
    """Comparison of one output with its reference."""

    output: str
    """Name of the output."""
    rel_l2_err: float
    """|got - expected| / |expected|, Euclidean norms over the whole tensor."""
    tolerance: float
    """Largest error that passes."""
    reference: str
    """Source of the expected values, such as float64 arithmetic."""
    attainable: float = 0.0
    """Error that f32 arithmetic may have: :data:`SPREAD` times ONNX Runtime's error against
    float64."""
    samples: int = 1
    """Number of compared samples; the error is the largest among them."""

    @property
    def passed(self) -> bool:
        """True if the error is within the tolerance; a NaN error fails."""
        return self.rel_l2_err <= self.tolerance

    @property
    def is_attained(self) -> bool:
        """True if the check passed, or the error is within that of f32 arithmetic."""
        return self.passed or self.rel_l2_err <= self.attainable

    def conceded(self) -> Check:
        """Copy the check with the tolerance raised to the attainable error."""
        return replace(self, tolerance=max(self.tolerance, self.attainable))


def concessions(checks: Iterable[Check]) -> Iterator[str]:
    """Warnings about outputs above their tolerance that f32 arithmetic cannot improve."""
    for one in checks:
        if not one.passed and one.is_attained:
            yield (
                f"output {one.output!r}: relative L2 error {one.rel_l2_err:.1e} exceeds the "
                f"promised {one.tolerance:.0e}, which f32 arithmetic hardly attains for this "
                f"network: ONNX Runtime's error against {one.reference} is "
                f"{one.attainable / SPREAD:.1e}"
            )


def conceded(checks: Sequence[Check]) -> list[Check]:
    """All `checks`; those that :func:`concessions` warns about get the attainable tolerance."""
    return [one.conceded() if one.is_attained else one for one in checks]


def require(checks: Iterable[Check], advice: str = ADVICE) -> None:
    """Reject a model with a failed check.

    Raises
    ------
    VerificationError
        Names the output and ends with `advice`.
    """
    for one in checks:
        if not one.passed:
            raise VerificationError(
                f"output {one.output!r} differs from {one.reference}: relative L2 error "
                f"{one.rel_l2_err:.2e}, expected at most {one.tolerance:.0e}{advice}"
            )
