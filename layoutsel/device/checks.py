"""The error of one output against its reference, judged: the same at home and on a device that has no numpy."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from tvm_passes.errors import LayoutselError

SPREAD = 4.0
"""Factor between a reference's own error and what is conceded to a model."""
ADVICE = ". Accept more with --precision auto --max-rel-error, and report it"
"""Advice about a model of which no plan in f32 is exact enough."""


class VerificationError(LayoutselError):
    """A compiled model whose results are not those of the reference."""


@dataclass(frozen=True, kw_only=True)
class Check:
    """One output compared."""

    output: str
    rel_l2_err: float
    """|got - expected| / |expected|, Euclidean norms over the whole tensor."""
    tolerance: float
    """What it may be at most."""
    reference: str
    attainable: float = 0.0
    """Error that f32 arithmetic may well have here: :data:`SPREAD` times that of ONNX Runtime, both against float64."""
    samples: int = 1
    """Inputs that it was compared on; the error is that of the worst."""

    @property
    def passed(self) -> bool:
        """True if the error is small enough; not if it is no number."""
        return self.rel_l2_err <= self.tolerance

    @property
    def is_attained(self) -> bool:
        """True if the error is about as small as f32 arithmetic gets it, though above the tolerance."""
        return self.passed or self.rel_l2_err <= self.attainable

    def conceded(self) -> Check:
        """The same with the tolerance that :attr:`is_attained` goes by."""
        return replace(self, tolerance=max(self.tolerance, self.attainable))


def concessions(checks: Iterable[Check]) -> Iterator[str]:
    """Warnings about promises that are not kept, where ONNX Runtime would not keep them either."""
    for one in checks:
        if not one.passed and one.is_attained:
            yield (
                f"output {one.output!r}: relative L2 error {one.rel_l2_err:.1e}, promised is {one.tolerance:.0e}, which "
                f"f32 arithmetic can hardly keep for this network: that of ONNX Runtime, against {one.reference} as "
                f"well, is {one.attainable / SPREAD:.1e}"
            )


def conceded(checks: Sequence[Check]) -> list[Check]:
    """The checks, with the tolerance of those that :func:`concessions` warns of raised."""
    return [one.conceded() if one.is_attained else one for one in checks]


def require(checks: Iterable[Check], advice: str = ADVICE) -> None:
    """Refuse a model of which a check failed.

    Raises
    ------
    VerificationError
        Names the output, and gives `advice`.
    """
    for one in checks:
        if not one.passed:
            raise VerificationError(
                f"output {one.output!r} differs from {one.reference}: relative L2 error {one.rel_l2_err:.2e}, "
                f"expected at most {one.tolerance:.0e}{advice}"
            )
