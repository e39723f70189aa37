"""The error of a whole model: every output, and the logits behind it, against the same reference on the same inputs."""

from __future__ import annotations

import logging
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache, partial

import numpy as np

from layoutsel.references import exact_results, onnxruntime_results, stock_results
from layoutsel.runtime.compiled import CompiledModel
from layoutsel.runtime.onnx_reference import onnx_softmaxes
from layoutsel.runtime.samples import random_inputs
from layoutsel.runtime.signature import signatures
from layoutsel.runtime.trial import TooSlow, run_within
from layoutsel.runtime.verify import (
    TOLERANCE,
    Again,
    Check,
    VerificationError,
    check,
    tolerance_of,
)
from layoutsel.session import Session

logger = logging.getLogger(__name__)


_TOO_SLOW = (
    "Pin that sub-graph to another unit or layout, allow more time (time_limit_s, --time-limit), or leave verification out "
    "(verify=False, --no-verify)"
)


@dataclass(frozen=True, kw_only=True)
class Sample:
    """Inputs with the results to expect."""

    inputs: Sequence[np.ndarray]
    expected: Sequence[np.ndarray]
    again: Again | None = None
    """Gives the reference's results in another order of its arithmetic."""
    exact: Again | None = None
    """Gives the results in float64."""


@dataclass(frozen=True, kw_only=True)
class Reference:
    """What to compare a session's models with; f32 arithmetic, computed once for all of them."""

    name: str
    samples: tuple[Sample, ...]
    softmaxes: Collection[str]
    """Outputs that a softmax makes."""
    own_error: float
    """Relative L2 error that f32 arithmetic, or the model's own narrower one, may have."""
    limit_s: float
    """Seconds that running a model on all samples may take."""


def reference_of(session: Session) -> Reference:
    """ONNX Runtime's results, or those of stock TVM where there is no ONNX model or no ONNX Runtime."""
    inputs = session.samples or (random_inputs(signatures(session.model.inputs)),)
    model, module = session.model.onnx, session.model.module
    if model is not None:
        samples = _onnxruntime_samples(session, inputs)
        if samples is not None:
            return Reference(
                name="ONNX Runtime",
                samples=samples,
                softmaxes=onnx_softmaxes(model),
                own_error=tolerance_of(module),
                limit_s=session.time_limit_s,
            )
    expected = stock_results(session, inputs)
    # Which of several outputs a softmax made is not known here: then all are held to the strict bound.
    outputs = [spec.name for spec in session.model.outputs]
    return Reference(
        name="stock TVM",
        samples=tuple(
            Sample(inputs=one, expected=result)
            for one, result in zip(inputs, expected, strict=True)
        ),
        softmaxes=outputs if len(outputs) == 1 else (),
        own_error=tolerance_of(module),
        limit_s=session.time_limit_s,
    )


def _onnxruntime_samples(
    session: Session, inputs: Sequence[Sequence[np.ndarray]]
) -> tuple[Sample, ...] | None:
    names = [spec.name for spec in session.model.inputs]
    feeds = [dict(zip(names, one, strict=True)) for one in inputs]
    results = onnxruntime_results(session, feeds)
    if results is None:
        return None

    def again(feed: Mapping[str, np.ndarray]) -> Sequence[np.ndarray] | None:
        other = onnxruntime_results(session, [feed], optimised=False)
        return other[0] if other else None

    # Several contenders may ask for the same. A model of narrower types has its own roundings, which float64 lacks.
    is_single = tolerance_of(session.model.module) == TOLERANCE
    return tuple(
        Sample(
            inputs=one,
            expected=result,
            again=cache(partial(again, feed)),
            exact=cache(partial(exact_results, session, feed)) if is_single else None,
        )
        for one, feed, result in zip(inputs, feeds, results, strict=True)
    )


def checks_of(
    model: CompiledModel, reference: Reference, tolerance: float, *, is_budget: bool = False
) -> list[Check]:
    """Measure `model` against `reference`; of each output, the check of the worst sample.

    A tolerance that `is_budget` holds as it stands; any other is widened for softmaxes, for what the reference itself
    moves, and for a model whose own types are narrower.

    Raises
    ------
    VerificationError
        If the first run, or all, take longer than the reference's limit.
    """
    allowed = tolerance if is_budget else max(tolerance, reference.own_error)
    worst: dict[str, Check] = {}
    deadline = time.monotonic() + reference.limit_s
    try:
        run_within(model, reference.samples[0].inputs, reference.limit_s)
    except TooSlow as error:
        raise VerificationError(f"the model cannot be verified: {error}. {_TOO_SLOW}") from error
    for index, sample in enumerate(reference.samples):
        if time.monotonic() >= deadline:
            raise VerificationError(
                f"the model cannot be verified: got {len(reference.samples)} samples, of which {index} took "
                f"{reference.limit_s:g} s; expected all within that time. Give fewer, or more time (time_limit_s, --time-limit)"
            )
        for one in check(
            model,
            sample.inputs,
            sample.expected,
            reference.name,
            () if is_budget else reference.softmaxes,
            tolerance=allowed,
            again=None if is_budget else sample.again,
            exact=None if is_budget else sample.exact,
        ):
            known = worst.get(one.output)
            if known is None or _excess(one) > _excess(known):
                worst[one.output] = replace(one, samples=len(reference.samples))
    return list(worst.values())


def note(model: CompiledModel, checks: Sequence[Check]) -> None:
    """Keep `checks` with the model."""
    model.header["checks"] = [asdict(one) for one in checks]


def worst_error(checks: Sequence[Check]) -> float:
    """The largest relative L2 error."""
    return max((one.rel_l2_err for one in checks), default=0.0)


def worst_excess(checks: Sequence[Check]) -> float:
    """The largest error in terms of its tolerance."""
    return max((_excess(one) for one in checks), default=0.0)


def _excess(one: Check) -> float:
    return one.rel_l2_err / max(one.tolerance, TOLERANCE * 1e-9)
