"""Never wrong: a compiled model against ONNX Runtime, stock TVM or float64, on the same inputs."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import tvm

from layoutsel.runtime.compiled import CompiledModel
from layoutsel.runtime.samples import rel_l2_err
from tvm_passes.errors import LayoutselError
from tvm_passes.ir import main_bindings, tensor_types

logger = logging.getLogger(__name__)

TOLERANCE = 1e-5
"""Relative L2 error that an f32 result may have."""
NARROW_TOLERANCES = {"bfloat16": 3e-2, "float16": 5e-3, "int8": 3e-2, "uint8": 3e-2}
"""The same for a model that computes in such a type itself: some ten of its rounding errors; of a quantised one, what
ONNX Runtime's results differ by from its own without optimisation."""
SPREAD = 4.0
"""Factor between a reference's own error and what is conceded to a model."""
MOST = 1e-3
"""Largest error that is conceded. A reference that moves further from itself, or is no number, verifies nothing."""
EXACT = "float64"
"""Name of the reference that errors are measured against where one is above its tolerance."""
ADVICE = ". Accept more with --precision auto --max-rel-error, and report it"
"""Advice about a model of which no plan in f32 is exact enough."""
Again = Callable[[], "Sequence[np.ndarray] | None"]
"""Gives the reference's results in another order of its arithmetic; None where it cannot."""


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
        """Whether the error is small enough; not if it is no number."""
        return self.rel_l2_err <= self.tolerance

    @property
    def is_attained(self) -> bool:
        """Whether the error is about as small as f32 arithmetic gets it, though above the tolerance."""
        return self.passed or self.rel_l2_err <= self.attainable

    def conceded(self) -> Check:
        """The same with the tolerance that :attr:`is_attained` goes by."""
        return replace(self, tolerance=max(self.tolerance, self.attainable))


def tolerance_of(module: tvm.IRModule) -> float:
    """Relative L2 error that results of `module` may have, by the narrowest type that it computes in."""
    types = {
        str(ty.dtype)
        for binding in main_bindings(module["main"])
        for ty in tensor_types(binding.var.ty)
    }
    return max([TOLERANCE, *(NARROW_TOLERANCES[name] for name in types & set(NARROW_TOLERANCES))])


def compare(
    model: CompiledModel,
    inputs: Sequence[np.ndarray],
    expected: Sequence[np.ndarray],
    reference: str,
    softmaxes: Collection[str] = (),
    *,
    tolerance: float = TOLERANCE,
    again: Again | None = None,
    exact: Again | None = None,
) -> list[Check]:
    """Compare every output of `model`, and the logits behind them; see :func:`check`.

    Raises
    ------
    VerificationError
        If an error exceeds its tolerance.
    """
    checks = check(
        model, inputs, expected, reference, softmaxes, tolerance=tolerance, again=again, exact=exact
    )
    require(checks)
    return checks


def check(
    model: CompiledModel,
    inputs: Sequence[np.ndarray],
    expected: Sequence[np.ndarray],
    reference: str,
    softmaxes: Collection[str] = (),
    *,
    tolerance: float = TOLERANCE,
    again: Again | None = None,
    exact: Again | None = None,
) -> list[Check]:
    """Measure the error of every output of `model`, and of the logits behind them.

    Softmax turns an absolute error of its input into a relative one of its result: behind logits of size m, a relative
    error of ε becomes one of up to m·ε. So the outputs named in `softmaxes` may be off by `tolerance` times the
    largest logit; the logits themselves, like every other output, by `tolerance`.

    The reference has an error of its own, which some networks magnify. So where an error is too large, all are measured
    against the results in float64 that `exact` gives, with the same tolerances; :attr:`Check.attainable` says how large
    the reference's own errors are then. Without these, `again` gives the reference's results in another order of its arithmetic. Where they move by δ, the result may be off by
    :data:`SPREAD` times δ, never by more than :data:`MOST`; a warning says so.

    Raises
    ------
    VerificationError
        If there is less to compare with than the model gives.
    """
    results = model.run_all(inputs)
    count = len(model.outputs)
    if len(expected) < count:
        raise VerificationError(
            f"{reference} gave {len(expected)} outputs; expected the model's {count}"
        )
    names = names_of([one.name for one in model.outputs], len(results), len(expected))

    def against(wanted: Sequence[np.ndarray], called: str) -> list[Check]:
        allowed = tolerances(names, count, wanted, tolerance, softmaxes)
        return [
            Check(output=name, rel_l2_err=rel_l2_err(got, want), tolerance=most, reference=called)
            for name, most, got, want in zip(names, allowed, results, wanted, strict=False)
        ]

    checks = against(expected, reference)
    if all(made.passed for made in checks):
        return checks
    values = exact() if exact is not None and tolerance < MOST else None
    if values is not None and len(values) == len(expected):
        measured = against(values, EXACT)
        attainable = widened([0.0] * len(measured), expected, values)
        measured = [
            replace(made, attainable=least)
            for made, least in zip(measured, attainable, strict=True)
        ]
        # Two that agree are right. Alone, an evaluator that is far from the reference may be what is wrong.
        if all(made.is_attained for made in measured) or _agree(expected, values):
            return measured
    if again is not None:
        other = again() or expected
        widest = widened([made.tolerance for made in checks], other, expected)
        checks = [replace(made, tolerance=most) for made, most in zip(checks, widest, strict=True)]
        _warn_of_widened([one for one in checks if one.output not in softmaxes], tolerance)
    return checks


def _agree(expected: Sequence[np.ndarray], values: Sequence[np.ndarray]) -> bool:
    """Whether the reference's results are about those in float64."""
    return all(rel_l2_err(one, two) <= MOST for one, two in zip(expected, values, strict=True))


def _warn_of_widened(checks: Iterable[Check], tolerance: float) -> None:
    for one in checks:
        if one.passed and one.rel_l2_err > tolerance:
            logger.warning(
                "output %r: relative L2 error %.1e is accepted, as %s differs from itself by %.1e",
                one.output, one.rel_l2_err, one.reference, one.tolerance / SPREAD,
            )  # fmt: skip


def names_of(outputs: Sequence[str], results: int, expected: int) -> list[str]:
    """Names of what is compared of `results` with as many `expected`: outputs, and the logits behind them.

    The reference and our passes look for logits each in its own way: without agreement, only outputs are compared.
    """
    exposed = results - len(outputs) if results == expected else 0
    return [*outputs, *(f"logits of output {index}" for index in range(exposed))]


def tolerances(
    names: Sequence[str],
    outputs: int,
    expected: Sequence[np.ndarray],
    tolerance: float,
    softmaxes: Collection[str],
) -> list[float]:
    """What each of the results in `names` may be off by, of which the first are `outputs`; see :func:`check`."""
    logits = expected[outputs : len(names)]
    largest = max([1.0, *(float(np.abs(want).max()) for want in logits)])
    return [tolerance * (largest if name in softmaxes else 1.0) for name in names]


def widened(
    allowed: Sequence[float], other: Sequence[np.ndarray], expected: Sequence[np.ndarray]
) -> list[float]:
    """Tolerances where the reference, computed in another order, moves from `expected` to `other`; see :func:`check`."""
    return [
        max(most, min(MOST, SPREAD * rel_l2_err(one, two)))
        for most, one, two in zip(allowed, other, expected, strict=False)
    ]


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
