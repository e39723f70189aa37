"""Never wrong: a compiled model against ONNX Runtime, stock TVM or float64, on the same inputs."""

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
"""Relative L2 error that an f32 result may have."""
NARROW_TOLERANCES = {"bfloat16": 3e-2, "float16": 5e-3, "int8": 3e-2, "uint8": 3e-2}
"""The same for a model that computes in such a type itself: some ten of its rounding errors; of a quantised one, what
ONNX Runtime's results differ by from its own without optimisation."""
MOST = 1e-3
"""Largest error that is conceded. A reference that moves further from itself, or is no number, verifies nothing."""
EXACT = "float64"
"""Name of the reference that errors are measured against where one is above its tolerance."""
Again = Callable[[], "Sequence[np.ndarray] | None"]
"""Gives the reference's results in another order of its arithmetic; None if it cannot."""


def tolerance_of(module: tvm.IRModule) -> float:
    """Relative L2 error that results of `module` may have, by the narrowest type that it computes in."""
    types = {
        str(ty.dtype)
        for binding in main_bindings(module["main"])
        for ty in tensor_types(binding.var.ty)
    }
    return max([TOLERANCE, *(NARROW_TOLERANCES[name] for name in types & set(NARROW_TOLERANCES))])


@dataclass(frozen=True, kw_only=True)
class Standard:
    """Results to compare with, and the error that each may have."""

    reference: str
    values: Sequence[np.ndarray]
    tolerances: Sequence[float]
    attainable: Sequence[float]
    """See :attr:`layoutsel.device.checks.Check.attainable`; 0 where nothing is known of it."""

    def checks(self, names: Sequence[str], results: Sequence[np.ndarray]) -> list[Check]:
        """The error of each result, called as in `names`."""
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
    """What results are expected, and how far they may be off.

    Softmax turns an absolute error of its input into a relative one of its result: behind logits of size m, a relative
    error of ε becomes one of up to m·ε. So the outputs named in `softmaxes` may be off by `tolerance` times the
    largest logit; the logits themselves, like every other output, by `tolerance`.
    """

    outputs: Sequence[str]
    """Names of the model's outputs; logits may follow them."""
    values: Sequence[np.ndarray]
    """The reference's results."""
    reference: str
    softmaxes: Collection[str] = ()
    tolerance: float = TOLERANCE
    again: Again | None = None
    """Gives the reference's results in another order of its arithmetic."""
    exact: Again | None = None
    """Gives the results in float64."""

    def names(self, results: int) -> list[str]:
        """Names of what is compared of so many results: outputs, and the logits behind them.

        The reference and our passes look for logits each in its own way: without agreement, only outputs are compared.
        """
        exposed = results - len(self.outputs) if results == len(self.values) else 0
        return [*self.outputs, *(f"logits of output {index}" for index in range(exposed))]

    def strict(self, names: Sequence[str]) -> Standard:
        """The reference's own results."""
        return self._standard(names, self.reference, self.values)

    def in_double(self, names: Sequence[str]) -> Standard | None:
        """The results in float64, by the same tolerances; None if there are none."""
        values = self.exact() if self.exact is not None and self.tolerance < MOST else None
        if values is None or len(values) != len(self.values):
            return None
        attainable = _widened([0.0] * len(names), self.values, values)
        return replace(self._standard(names, EXACT, values), attainable=attainable)

    def widened(self, names: Sequence[str]) -> Standard:
        """The reference's own results, tolerances widened by what these move by in another order of arithmetic.

        Where they move by δ, a result may be off by :data:`SPREAD` times δ, never by more than :data:`MOST`.
        """
        strict = self.strict(names)
        other = self.again() if self.again is not None else None
        if other is None:
            return strict
        return replace(strict, tolerances=_widened(strict.tolerances, other, self.values))

    def agrees(self, exact: Standard) -> bool:
        """True if the reference's results are about those in float64: two that agree are right.

        Alone, an evaluator that is far from the reference may be what is wrong.
        """
        pairs = zip(self.values, exact.values, strict=True)
        return all(rel_l2_err(one, two) <= MOST for one, two in pairs)

    def portable(self, names: Sequence[str]) -> Standard:
        """The standard for a machine where nobody can be asked: float64 where that is to be trusted."""
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
    """Measure the error of every output of `model`, and of the logits behind them.

    The reference has an error of its own, which some networks magnify. So where an error is too large, all are measured
    against the results in float64, with the same tolerances. Without these, the tolerances are those of
    :meth:`Expected.widened`; a warning says so.

    Raises
    ------
    VerificationError
        If there is less to compare with than the model gives.
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
    """Tolerances where results, computed otherwise, move from `expected` to `other`; see :meth:`Expected.widened`."""
    return [
        max(most, min(MOST, SPREAD * rel_l2_err(one, two)))
        for most, one, two in zip(allowed, other, expected, strict=False)
    ]
