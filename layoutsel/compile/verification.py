"""Verification of a whole model: every output, and its logits, against a reference."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache, partial

import numpy as np
import onnx

from layoutsel.compile.references import (
    exact_results,
    onnxruntime_results,
    stated_results,
    stock_results,
)
from layoutsel.compile.session import Session
from layoutsel.core.precision import ErrorBound
from layoutsel.device.checks import Check, VerificationError
from layoutsel.device.signature import signatures
from layoutsel.model.input_use import uses_of
from layoutsel.references.drawn_inputs import are_all_numbers, drawn_inputs
from layoutsel.references.foreign import has_foreign_operators
from layoutsel.references.onnx_reference import onnx_softmaxes
from layoutsel.references.verify import EXACT, TOLERANCE, Again, Expected, check, tolerance_of
from layoutsel.runtime.compiled import CompiledModel
from layoutsel.runtime.samples import random_inputs
from layoutsel.runtime.trial import TooSlow, run_within

SLACK, SLACK_LARGE = 30.0, 3e3
"""Factors of the tolerance for extreme inputs, and for extreme inputs that are large numbers.

Both kinds magnify rounding errors. Non-finite results and gross errors are still found.
"""
_TOO_SLOW = (
    "Pin that sub-graph to another unit or layout, allow more time (time_limit_s, --time-limit), "
    "or leave verification out (verify=False, --no-verify)"
)


@dataclass(frozen=True, kw_only=True)
class VerificationSample:
    """Inputs with their expected results."""

    inputs: Sequence[np.ndarray]
    """Inputs of the model, in order."""
    expected: Sequence[np.ndarray]
    """Expected results, in order."""
    again: Again | None = None
    """Function that returns the reference's results with another order of its arithmetic."""
    exact: Again | None = None
    """Function that returns the results in float64."""
    slack: float = 1.0
    """Factor of the tolerance, see :data:`SLACK`; 1 for usual inputs."""


@dataclass(frozen=True, kw_only=True)
class Reference:
    """Reference results for all models of a session, in f32 arithmetic, computed once."""

    name: str
    """Name of the reference engine."""
    samples: tuple[VerificationSample, ...]
    """Inputs and results; the first sample has usual inputs."""
    softmaxes: Collection[str]
    """Names of the outputs of softmaxes."""
    own_error: float
    """Relative L2 error of f32 arithmetic, or of narrower types in the model itself."""
    limit_s: float
    """Time limit of running a model on all samples, seconds."""

    def expected(
        self,
        sample: VerificationSample,
        outputs: Sequence[str],
        bound: ErrorBound,
    ) -> Expected:
        """Return the expected results of a model on `sample`, with their tolerance.

        A bound that is not strict is widened for softmaxes, for the reference's own rounding
        errors, and for a model with narrower types.

        Parameters
        ----------
        sample
            Sample to compare on.
        outputs
            Names of the outputs.
        bound
            Bound of the precision mode.
        """
        is_extreme = sample.slack > 1
        is_strict = bound.is_strict or is_extreme
        return Expected(
            outputs=outputs,
            values=sample.expected,
            reference=f"{self.name} on extreme inputs" if is_extreme else self.name,
            softmaxes=() if bound.is_strict else self.softmaxes,
            tolerance=sample.slack * bound.with_own(self.own_error),
            again=None if is_strict else sample.again,
            exact=None if is_strict else sample.exact,
        )


def reference_of(session: Session) -> Reference:
    """Compute the reference results of a session.

    They come from ONNX Runtime; without it or an ONNX model, from stock TVM. Operators that ONNX
    Runtime lacks are computed in float64 by the references of their entries.

    Raises
    ------
    VerificationError
        If a reference takes longer than the session's time limit, or fails.
    """
    model, module = session.model.onnx, session.model.module
    if model is not None and has_foreign_operators(model):
        return _stated_reference(session, model)
    if model is not None:
        samples = _onnxruntime_samples(session, *_inputs_of(session, model))
        if samples is not None:
            return Reference(
                name="ONNX Runtime",
                samples=samples,
                softmaxes=onnx_softmaxes(model),
                own_error=tolerance_of(module),
                limit_s=session.options.time_limit_s,
            )
    inputs = session.samples or (random_inputs(signatures(session.model.inputs)),)
    expected = stock_results(session, inputs)
    # The outputs of softmaxes are unknown here, so several outputs all get the strict bound.
    outputs = [spec.name for spec in session.model.outputs]
    return Reference(
        name="stock TVM",
        samples=tuple(
            VerificationSample(inputs=one, expected=result)
            for one, result in zip(inputs, expected, strict=True)
        ),
        softmaxes=outputs if len(outputs) == 1 else (),
        own_error=tolerance_of(module),
        limit_s=session.options.time_limit_s,
    )


def _stated_reference(session: Session, model: onnx.ModelProto) -> Reference:
    """Compute results in float64 by the references of operators' entries, on usual inputs.

    Extreme inputs are useless here: float64 stays finite where float32 overflows.
    """
    inputs, _ = _inputs_of(session, model)
    names = [spec.name for spec in session.model.inputs]
    results = stated_results(session, [dict(zip(names, one, strict=True)) for one in inputs])
    return Reference(
        name=EXACT,
        samples=tuple(
            VerificationSample(inputs=one, expected=result)
            for one, result in zip(inputs, results, strict=True)
        ),
        softmaxes=onnx_softmaxes(model),
        own_error=tolerance_of(session.model.module),
        limit_s=session.options.time_limit_s,
    )


def _inputs_of(
    session: Session, model: onnx.ModelProto
) -> tuple[Sequence[Sequence[np.ndarray]], Sequence[Sequence[np.ndarray]]]:
    """Return the user's inputs, or else inputs drawn by their use, and extreme ones."""
    if session.samples:
        return session.samples, ()
    takes, uses = signatures(session.model.inputs), uses_of(model)
    return (drawn_inputs(takes, uses),), (drawn_inputs(takes, uses, extreme=True),)


def _onnxruntime_samples(
    session: Session,
    inputs: Sequence[Sequence[np.ndarray]],
    extremes: Sequence[Sequence[np.ndarray]],
) -> tuple[VerificationSample, ...] | None:
    assert session.model.onnx is not None, "a Relax module"
    names = [spec.name for spec in session.model.inputs]
    feeds = [dict(zip(names, one, strict=True)) for one in (*inputs, *extremes)]
    results = onnxruntime_results(session, feeds)
    if results is None:
        return None

    def again(feed: Mapping[str, np.ndarray]) -> Sequence[np.ndarray] | None:
        other = onnxruntime_results(session, [feed], optimised=False)
        return other[0] if other else None

    # Cached, as several contenders may ask for the same results. Results in float64 lack the
    # rounding errors of a model with narrower types.
    is_single = tolerance_of(session.model.module) == TOLERANCE
    is_large = are_all_numbers(uses_of(session.model.onnx))
    return tuple(
        VerificationSample(
            inputs=one,
            expected=result,
            again=cache(partial(again, feed)),
            exact=cache(partial(exact_results, session, feed)) if is_single else None,
            slack=1.0 if index < len(inputs) else SLACK_LARGE if is_large else SLACK,
        )
        for index, (one, feed, result) in enumerate(
            zip((*inputs, *extremes), feeds, results, strict=True)
        )
        # Extremes with a non-finite reference result are useless.
        if index < len(inputs) or all(_is_finite(value) for value in result)
    )


def _is_finite(value: np.ndarray) -> bool:
    return value.dtype.kind != "f" or bool(np.isfinite(value).all())


def checks_of(model: CompiledModel, reference: Reference, bound: ErrorBound) -> list[Check]:
    """Measure `model` against `reference`; for each output, return the check of the worst sample.

    See :meth:`Reference.expected` for the tolerance.

    Raises
    ------
    VerificationError
        If the first run, or all runs together, take longer than the reference's time limit.
    """
    outputs = [one.name for one in model.outputs]
    worst: dict[str, Check] = {}
    deadline = time.monotonic() + reference.limit_s
    try:
        run_within(model, reference.samples[0].inputs, reference.limit_s)
    except TooSlow as error:
        raise VerificationError(f"the model cannot be verified: {error}. {_TOO_SLOW}") from error
    model.run_all(reference.samples[0].inputs)  # recorded; the checked runs repeat it
    for index, sample in enumerate(reference.samples):
        if time.monotonic() >= deadline:
            raise VerificationError(
                f"the model cannot be verified: got {len(reference.samples)} samples, of which "
                f"{index} took {reference.limit_s:g} s; expected all within that time. "
                "Give fewer, or more time (time_limit_s, --time-limit)"
            )
        expected = reference.expected(sample, outputs, bound)
        for one in _checks_on(sample, model, reference, expected):
            if sample.slack > 1 and one.passed:
                continue  # errors on extreme inputs do not describe usual ones
            known = worst.get(one.output)
            if known is None or _excess(one) > _excess(known):
                worst[one.output] = replace(one, samples=len(reference.samples))
    return list(worst.values())


def _checks_on(
    sample: VerificationSample, model: CompiledModel, reference: Reference, expected: Expected
) -> list[Check]:
    """Check a model on one sample."""
    checks = check(model, sample.inputs, expected)
    if sample.slack <= 1:
        return checks
    usual = reference.samples[0].expected
    shares = map(_share_of_usual, sample.expected, usual)
    return [
        replace(one, rel_l2_err=one.rel_l2_err * share)
        for one, share in zip(checks, shares, strict=False)
    ]


def _share_of_usual(extreme: np.ndarray, usual: np.ndarray) -> float:
    """Compute the norm of an output on extreme inputs relative to its usual norm, at most 1.

    Extremes saturate: a sigmoid returns 1e-31, of which no engine has a correct digit.
    """
    norm, common = (
        max(float(np.linalg.norm(np.nan_to_num(one.astype(np.float64), posinf=0, neginf=0))), 1e-30)
        for one in (extreme, usual)
    )
    return min(1.0, norm / common)


def note(model: CompiledModel, checks: Sequence[Check]) -> None:
    """Write `checks` into the model's header."""
    model.header["checks"] = [asdict(one) for one in checks]


def worst_error(checks: Sequence[Check]) -> float:
    """Return the largest relative L2 error."""
    return max((one.rel_l2_err for one in checks), default=0.0)


def worst_excess(checks: Sequence[Check]) -> float:
    """Return the largest ratio of an error to its tolerance."""
    return max((_excess(one) for one in checks), default=0.0)


def _excess(one: Check) -> float:
    return one.rel_l2_err / max(one.tolerance, TOLERANCE * 1e-9)
