"""Errors of an engine's results by kind: logits, probabilities and other outputs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx

from layoutsel.core.precision import PrecisionMode
from layoutsel.references.onnx_reference import onnx_softmaxes

LOGITS, PROBABILITIES, OUTPUT = "logits", "probabilities", "output"
"""Kinds of results: inputs of a final softmax, its outputs, and other outputs of the model."""


@dataclass(frozen=True, kw_only=True)
class Compared:
    """A result that is compared between engines."""

    name: str
    """Name of the ONNX tensor."""
    kind: str
    """One of :data:`LOGITS`, :data:`PROBABILITIES` and :data:`OUTPUT`."""
    largest_logit: float
    """Largest absolute value of the logits, or of a softmax's inputs; 0 for others."""


@dataclass(frozen=True, kw_only=True)
class Accuracy:
    """Error of one result."""

    output: str
    """Name of the ONNX tensor."""
    kind: str
    """One of :data:`LOGITS`, :data:`PROBABILITIES` and :data:`OUTPUT`."""
    rel_l2_err: float
    """Relative L2 error against ONNX Runtime in f32."""
    tolerance: float
    """Largest error that layoutsel's precision mode allows."""
    reason: str
    """Origin of the tolerance."""

    def __str__(self) -> str:
        verb = "at most" if self.rel_l2_err <= self.tolerance else "above"
        return f"{self.kind} {self.rel_l2_err:.1e}, {verb} {self.tolerance:.1e} ({self.reason})"


def compared(model: onnx.ModelProto, expected: Sequence[np.ndarray]) -> tuple[Compared, ...]:
    """Describe the results `expected` of `model`: outputs first, then logits of final softmaxes."""
    softmaxes = onnx_softmaxes(model)
    outputs = [value.name for value in model.graph.output]
    names = [*outputs, *dict.fromkeys(softmaxes.values())]
    values = dict(zip(names[len(outputs) :], expected[len(outputs) :], strict=False))
    largest = {name: float(np.abs(value).max(initial=0.0)) for name, value in values.items()}
    return tuple(
        Compared(
            name=name,
            kind=_kind(name, softmaxes, is_output=index < len(outputs)),
            largest_logit=largest.get(softmaxes.get(name, name), 0.0),
        )
        for index, name in enumerate(names[: len(expected)])
    )


def _kind(name: str, softmaxes: dict[str, str], *, is_output: bool) -> str:
    if not is_output:
        return LOGITS
    return PROBABILITIES if name in softmaxes else OUTPUT


def judged(
    results: Sequence[Compared], errors: Sequence[float], mode: PrecisionMode
) -> tuple[Accuracy, ...]:
    """Errors of `results`, each with the tolerance of `mode` and its origin."""
    return tuple(
        Accuracy(
            output=one.name,
            kind=one.kind,
            rel_l2_err=error,
            tolerance=_tolerance(one, mode),
            reason=_reason(one, mode),
        )
        for one, error in zip(results, errors, strict=False)
    )


def worst_by_kind(accuracies: Sequence[Accuracy]) -> list[Accuracy]:
    """Error of each kind that is largest relative to its tolerance."""
    worst: dict[str, Accuracy] = {}
    for one in accuracies:
        known = worst.get(one.kind)
        if known is None or one.rel_l2_err / one.tolerance > known.rel_l2_err / known.tolerance:
            worst[one.kind] = one
    return list(worst.values())


def _is_conditioned(one: Compared, mode: PrecisionMode) -> bool:
    # The relative error of a softmax is the absolute error of its logits.
    return one.kind == PROBABILITIES and one.largest_logit > 1 and not mode.bound.is_strict


def _tolerance(one: Compared, mode: PrecisionMode) -> float:
    return mode.tolerance * (one.largest_logit if _is_conditioned(one, mode) else 1.0)


def _reason(one: Compared, mode: PrecisionMode) -> str:
    promise = f"the {'budget' if mode.bound.is_strict else 'promise'} of {mode.name}"
    if not _is_conditioned(one, mode):
        return promise
    return (
        f"{promise} times the largest logit, {one.largest_logit:.3g}: a softmax magnifies errors "
        "by that"
    )
