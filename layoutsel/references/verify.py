"""Verification of compiled models against ONNX Runtime, unmodified TVM or float64."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import tvm

from layoutsel.device.checks import SPREAD, Check, VerificationError
from layoutsel.runtime.compiled import CompiledModel
from layoutsel.runtime.samples import rel_l2_err
from tvm_passes.ir import main_bindings, tensor_types

logger = logging.getLogger(__name__)

TOLERANCE = 1e-5
"""Largest relative L2 error of an f32 result."""
NARROW_TOLERANCES = {"bfloat16": 3e-2, "float16": 5e-3, "int8": 3e-2, "uint8": 3e-2}
"""Largest relative L2 error of a model that computes in such a type.

Ten times the type's rounding error; for quantised models, the difference between ONNX Runtime's
results with and without optimisation.
"""
MOST = 1e-3
"""Largest widened tolerance; a reference that deviates more from itself verifies nothing."""
EXACT = "float64"
"""Name of the reference that is used when an error exceeds its tolerance."""
Again = Callable[[], "Sequence[np.ndarray] | None"]
"""Function that recomputes the reference's results in another way; None if it cannot."""


def tolerance_of(module: tvm.IRModule) -> float:
    """Largest relative L2 error of `module`'s results, by the narrowest type that it uses."""
    types = {
        str(ty.dtype)
        for binding in main_bindings(module["main"])
        for ty in tensor_types(binding.var.ty)
    }
    return max([TOLERANCE, *(NARROW_TOLERANCES[name] for name in types & set(NARROW_TOLERANCES))])


@dataclass(frozen=True, kw_only=True)
class Standard:
    """Expected results with tolerances."""

    reference: str
    """Source of the values."""
    values: Sequence[np.ndarray]
    """Expected results."""
    tolerances: Sequence[float]
    """Largest relative L2 error of each result."""
    attainable: Sequence[float]
    """See :attr:`layoutsel.device.checks.Check.attainable`; 0 if unknown."""

    def checks(self, names: Sequence[str], results: Sequence[np.ndarray]) -> list[Check]:
        """Compare results, called `names`, with the expected ones."""
        each = zip(names, results, self.values, self.tolerances, self.attainable, strict=False)
        return [
            Check(
                output=name,
                rel_l2_err=rel_l2_err(got, want),
                tolerance=most,
                reference=self.reference,
                attainable=least,
            )
            for name, got, want, most, least in each
        ]


@dataclass(frozen=True, kw_only=True)
class Expected:
    """Expected results of a model, and ways to compute them again.

    A softmax turns an absolute error of its input into a relative error of its result. With logits
    of size m, a relative error of ε becomes at most m·ε. The tolerance of outputs in `softmaxes` is
    therefore `tolerance` times the largest logit. All other outputs, and the logits themselves,
    have `tolerance`.
    """

    outputs: Sequence[str]
    """Names of the model's outputs; logits may follow them in results."""
    values: Sequence[np.ndarray]
    """Results of the reference."""
    reference: str
    """Name of the reference."""
    softmaxes: Collection[str] = ()
    """Names of outputs that are results of a softmax."""
    tolerance: float = TOLERANCE
    """Largest relative L2 error of a result."""
    again: Again | None = None
    """Recomputes the reference's results in another order of its arithmetic."""
    exact: Again | None = None
    """Computes the results in float64."""

    def names(self, results: int) -> list[str]:
        """Names for a number of results: outputs first, then logits.

        The reference and the compiled model find logits independently. If their numbers differ,
        only outputs are compared.
        """
        exposed = results - len(self.outputs) if results == len(self.values) else 0
        return [*self.outputs, *(f"logits of output {index}" for index in range(exposed))]

    def strict(self, names: Sequence[str]) -> Standard:
        """Standard of the reference's own results."""
        return self._standard(names, self.reference, self.values)

    def in_double(self, names: Sequence[str]) -> Standard | None:
        """Standard of the results in float64, with the same tolerances; None without them."""
        values = self.exact() if self.exact is not None and self.tolerance < MOST else None
        if values is None or len(values) != len(self.values):
            return None
        attainable = _widened([0.0] * len(names), self.values, values)
        return replace(self._standard(names, EXACT, values), attainable=attainable)

    def widened(self, names: Sequence[str]) -> Standard:
        """Standard of the reference's results, with tolerances for the reference's own error.

        If the results change by δ in another order of arithmetic, the tolerance is at least
        :data:`SPREAD` times δ, but at most :data:`MOST`.
        """
        strict = self.strict(names)
        other = self.again() if self.again is not None else None
        if other is None:
            return strict
        return replace(strict, tolerances=_widened(strict.tolerances, other, self.values))

    def agrees(self, exact: Standard) -> bool:
        """True if the reference's results are close to those in float64.

        A float64 evaluator that disagrees with the reference may itself be wrong.
        """
        pairs = zip(self.values, exact.values, strict=True)
        return all(rel_l2_err(one, two) <= MOST for one, two in pairs)

    def portable(self, names: Sequence[str]) -> Standard:
        """Standard for another machine: float64 if it agrees with the reference, else widened."""
        exact = self.in_double(names)
        return exact if exact is not None and self.agrees(exact) else self.widened(names)

    def _standard(
        self, names: Sequence[str], reference: str, values: Sequence[np.ndarray]
    ) -> Standard:
        logits = values[len(self.outputs) : len(names)]
        largest = max([1.0, *(float(np.abs(want).max()) for want in logits)])
        return Standard(
            reference=reference,
            values=values,
            tolerances=[
                self.tolerance * (largest if name in self.softmaxes else 1.0) for name in names
            ],
            attainable=[0.0] * len(names),
        )


def check(model: CompiledModel, inputs: Sequence[np.ndarray], expected: Expected) -> list[Check]:
    """Measure the error of every output of `model`, and of exposed logits.

    The reference has an error of its own, which some networks magnify. If an error is too large,
    all results are compared with those in float64, with the same tolerances. Without float64
    results, the tolerances are those of :meth:`Expected.widened`, and a warning is logged.

    Parameters
    ----------
    model
        Compiled model.
    inputs
        Checked inputs.
    expected
        Results of the reference for these inputs.

    Raises
    ------
    VerificationError
        If the reference has fewer results than the model has outputs.
    """
    results = model.run_all(inputs)
    if len(expected.values) < len(expected.outputs):
        raise VerificationError(
            f"{expected.reference} gave {len(expected.values)} outputs; expected the model's "
            f"{len(expected.outputs)}"
        )
    names = expected.names(len(results))
    checks = expected.strict(names).checks(names, results)
    if all(made.passed for made in checks):
        return checks
    exact = expected.in_double(names)
    if exact is not None:
        measured = exact.checks(names, results)
        if all(made.is_attained for made in measured) or expected.agrees(exact):
            return measured
    if expected.again is not None:
        checks = expected.widened(names).checks(names, results)
        plain = [one for one in checks if one.output not in expected.softmaxes]
        _warn_of_widened(plain, expected.tolerance)
    return checks


def _warn_of_widened(checks: Iterable[Check], tolerance: float) -> None:
    for one in checks:
        if one.passed and one.rel_l2_err > tolerance:
            logger.warning(
                "output %r: relative L2 error %.1e is accepted, as %s differs from itself by %.1e",
                one.output, one.rel_l2_err, one.reference, one.tolerance / SPREAD,
            )  # fmt: skip


def _widened(
    allowed: Sequence[float], other: Sequence[np.ndarray], expected: Sequence[np.ndarray]
) -> list[float]:
    """Tolerances that cover the change from `expected` to `other`; see :meth:`Expected.widened`."""
    return [
        max(most, min(MOST, SPREAD * rel_l2_err(one, two)))
        for most, one, two in zip(allowed, other, expected, strict=False)
    ]
