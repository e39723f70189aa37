"""The error of a whole model: every output, and the logits behind it, against the same reference on the same inputs."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial

import numpy as np
import onnx

from layoutsel.runtime.compiled import CompiledModel
from layoutsel.runtime.samples import random_inputs
from layoutsel.runtime.signature import Signature
from layoutsel.runtime.verify import (
    TOLERANCE,
    Again,
    Check,
    check,
    onnx_softmaxes,
    onnxruntime_references,
    tolerance_of,
    tvm_references,
)
from layoutsel.session import Session
from tvm_passes.expose_logits import ExposeLogits

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Sample:
    """Inputs with the results to expect."""

    inputs: Sequence[np.ndarray]
    expected: Sequence[np.ndarray]
    again: Again | None = None


@dataclass(frozen=True, kw_only=True)
class Reference:
    """What to compare a session's models with; f32 arithmetic, computed once for all of them."""

    name: str
    samples: tuple[Sample, ...]
    softmaxes: Collection[str]
    """Outputs that a softmax makes."""
    own_error: float
    """Relative L2 error that f32 arithmetic, or the model's own narrower one, may have."""


def reference_of(session: Session) -> Reference:
    """ONNX Runtime's results, or those of stock TVM where there is no ONNX model or no ONNX Runtime."""
    inputs = session.samples or (random_inputs(_signatures(session)),)
    model, module = session.model.onnx, session.model.module
    if model is not None:
        names = [spec.name for spec in session.model.inputs]
        samples = _onnxruntime_samples(model, names, inputs)
        if samples is not None:
            return Reference(
                name="ONNX Runtime",
                samples=samples,
                softmaxes=onnx_softmaxes(model),
                own_error=tolerance_of(module),
            )
    expected = tvm_references(ExposeLogits()(module), inputs)
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
    )


def _onnxruntime_samples(
    model: onnx.ModelProto, names: Sequence[str], inputs: Sequence[Sequence[np.ndarray]]
) -> tuple[Sample, ...] | None:
    feeds = [dict(zip(names, one, strict=True)) for one in inputs]
    results = _onnxruntime_results(model, feeds)
    if results is None:
        return None

    def again(feed: Mapping[str, np.ndarray]) -> Sequence[np.ndarray] | None:
        other = _onnxruntime_results(model, [feed], optimised=False)
        return other[0] if other else None

    return tuple(
        Sample(inputs=one, expected=result, again=partial(again, feed))
        for one, feed, result in zip(inputs, feeds, results, strict=True)
    )


def _onnxruntime_results(
    model: onnx.ModelProto, feeds: Sequence[Mapping[str, np.ndarray]], *, optimised: bool = True
) -> list[list[np.ndarray]] | None:
    """What ONNX Runtime computes; None where it is missing or refuses the model."""
    try:
        return onnxruntime_references(model, feeds, optimised=optimised)
    except ImportError:
        logger.warning("ONNX Runtime is not installed: verifying against stock TVM, slowly")
    except Exception as error:
        reason = str(error).strip().splitlines()[0]
        logger.warning(
            "ONNX Runtime refuses the model (%s): verifying against stock TVM, which shares the import",
            reason,
        )
    return None


def checks_of(
    model: CompiledModel, reference: Reference, tolerance: float, *, is_budget: bool = False
) -> list[Check]:
    """Measure `model` against `reference`; of each output, the check of the worst sample.

    A tolerance that `is_budget` holds as it stands; any other is widened for softmaxes, for what the reference itself
    moves, and for a model whose own types are narrower.
    """
    allowed = tolerance if is_budget else max(tolerance, reference.own_error)
    worst: dict[str, Check] = {}
    for sample in reference.samples:
        for one in check(
            model,
            sample.inputs,
            sample.expected,
            reference.name,
            () if is_budget else reference.softmaxes,
            tolerance=allowed,
            again=None if is_budget else sample.again,
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


def _excess(one: Check) -> float:
    return one.rel_l2_err / max(one.tolerance, TOLERANCE * 1e-9)


def _signatures(session: Session) -> list[Signature]:
    return [
        Signature(name=spec.name, shape=spec.shape, dtype=spec.dtype)
        for spec in session.model.inputs
    ]
