"""Results of reference engines within limits of time and memory, in a process that can be ended."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import tvm

from layoutsel.device.checks import VerificationError
from layoutsel.device.outcome import FailureKind
from layoutsel.device.worker import Reply
from layoutsel.references.reference_worker import MISSING, REFUSED, RESULTS
from layoutsel.references.stored_arrays import ArrayFile
from layoutsel.references.stored_model import StoredModel
from tvm_passes.arrays import array_of
from tvm_passes.expose_logits import ExposeLogits
from tvm_passes.freed_memory import give_back
from tvm_passes.lift_weights import LiftWeights, collect_weights

if TYPE_CHECKING:
    from layoutsel.compile.session import Session

logger = logging.getLogger(__name__)

EXACT_FLOPS = 5e11
"""Maximum FLOPs of a model for results in float64."""
EXACT_LIMIT_S = 60.0
"""Time limit of results in float64, seconds."""
EXACT_BYTES = 2 << 30
"""Memory limit of results in float64, in addition to twice the weights, bytes."""

Feeds = Sequence[Mapping[str, np.ndarray]]
"""Inputs by name, one mapping for each sample."""
Results = list[list[np.ndarray]]
"""Results in order, one list for each sample."""


def onnxruntime_results(
    session: Session, feeds: Feeds, *, optimised: bool = True
) -> Results | None:
    """Compute results with ONNX Runtime; warn and return None if that is not possible.

    Parameters
    ----------
    session
        Session of the model.
    feeds
        Inputs of each sample.
    optimised
        False to switch off its graph optimisations, which changes the order of the arithmetic.

    Raises
    ------
    VerificationError
        If it takes longer than the session's time limit.
    """
    try:
        stored = _stored(session)
    except OSError as error:
        raise _no_room(error) from error
    payload = {
        **stored.payload(),
        "reference": "onnxruntime",
        "samples": [dict(feed) for feed in feeds],
        "optimised": optimised,
    }
    kind, value = _computed("ONNX Runtime", session, payload)
    if kind == MISSING:
        _warn_missing()
    elif kind == REFUSED:
        _warn_refused(value)
    return _results(value) if kind == RESULTS else None


def exact_results(session: Session, feed: Mapping[str, np.ndarray]) -> list[np.ndarray] | None:
    """Compute results in float64; warn and return None if that is not possible."""
    work = _flops(session)
    kind, value = REFUSED, f"{work / 1e9:.0f} GFLOP, expected at most {EXACT_FLOPS / 1e9:.0f}"
    if work <= EXACT_FLOPS:
        try:
            kind, value = _exact_results(session, feed)
        except OSError as error:
            value = f"the weights cannot be written: {error.strerror}"
    if kind == RESULTS:
        return _results(value)[0]
    _warn_inexact(value)
    return None


def _exact_results(session: Session, feed: Mapping[str, np.ndarray]) -> tuple[str, Any]:
    stored = _stored(session)
    payload = _exact_payload(stored, [feed])
    limit_s = min(EXACT_LIMIT_S, session.options.time_limit_s)
    return _within(session, payload, limit_s) or (REFUSED, f"they take longer than {limit_s:g} s")


def _exact_payload(stored: StoredModel, feeds: Feeds) -> dict[str, Any]:
    weights = sum(array.nbytes for array in stored.file.arrays.mapped())
    return {
        **stored.payload(),
        "reference": "float64",
        "samples": [dict(feed) for feed in feeds],
        "most_bytes": EXACT_BYTES + 2 * weights,
    }


def stated_results(session: Session, feeds: Feeds) -> Results:
    """Compute results in float64 of a model with operators that ONNX Runtime lacks.

    The entry of each such operator in the table of operators defines its reference.

    Raises
    ------
    VerificationError
        If it takes longer than the session's time limit, or fails.
    """
    try:
        stored = _stored(session)
    except OSError as error:
        raise _no_room(error) from error
    payload = _exact_payload(stored, feeds)
    kind, value = _computed("ONNX's reference in float64", session, payload)
    if kind == REFUSED:
        raise VerificationError(
            f"the model cannot be verified: ONNX Runtime lacks operators of it, and ONNX's "
            f"reference with those of their entries fails: {value}. Correct that reference, "
            f"or leave verification out (verify=False, --no-verify)"
        )
    return _results(value)


def stock_results(session: Session, inputs: Sequence[Sequence[np.ndarray]]) -> Results:
    """Compute results with stock TVM.

    Raises
    ------
    VerificationError
        If it takes longer than the session's time limit, or fails.
    """
    module = ExposeLogits()(session.model.module)
    try:
        file = ArrayFile(array_of(weight.constant) for weight in collect_weights(module))
    except OSError as error:
        raise _no_room(error) from error
    payload = {
        "reference": "tvm",
        "module": tvm.ir.save_json(LiftWeights()(module)),
        "arrays": file.arrays,
        "samples": [list(one) for one in inputs],
    }
    kind, value = _computed("stock TVM", session, payload)
    if kind == REFUSED:
        raise VerificationError(f"stock TVM does not compute the model: {value}. {_ADVICE}")
    return _results(value)


_ADVICE = (
    "Allow more time (time_limit_s, --time-limit), give the model as ONNX where it is a Relax "
    "module, or leave verification out (verify=False, --no-verify)"
)


def _computed(name: str, session: Session, payload: Mapping[str, Any]) -> tuple[str, Any]:
    """Call :func:`layoutsel.references.reference_worker.compute` within the session's time limit.

    Raises
    ------
    VerificationError
        If the time limit is exceeded.
    """
    found = _within(session, payload, session.options.time_limit_s)
    if found is None:
        raise _timed_out(name, session)
    return found


def _within(session: Session, payload: Mapping[str, Any], limit_s: float) -> tuple[str, Any] | None:
    """Call the reference process within `limit_s` seconds; None if they are not enough."""
    give_back()
    worker = session.reference_process
    reply = worker.call(payload, limit_s)
    if session.stored is not None:
        worker.close()  # the process takes as much memory as the model
    if isinstance(reply, Reply):
        kind, value = reply.value
        return kind, value
    return None if reply.kind is FailureKind.TIMEOUT else (REFUSED, reply.reason)


def _flops(session: Session) -> int:
    return sum(subgraph.flops for subgraph in session.graph.subgraphs)


def _stored(session: Session) -> StoredModel:
    """Return the session's ONNX model in a form for another process.

    Raises
    ------
    OSError
        If there is no disk space for its weights.
    """
    assert session.model.onnx is not None, "a Relax module"
    return session.stored or StoredModel.of(session.model.onnx)


def _results(value: Any) -> Results:
    return [list(one) for one in value]


def _timed_out(name: str, session: Session) -> VerificationError:
    return VerificationError(
        f"the model cannot be verified: {name} did not compute the reference within "
        f"{session.options.time_limit_s:g} s. {_ADVICE}"
    )


def _no_room(error: OSError) -> VerificationError:
    return VerificationError(
        f"the model cannot be verified: its weights cannot be written for the reference "
        f"({error.strerror}). Make room in the folder for temporary files (TMPDIR), "
        f"or leave verification out (verify=False, --no-verify)"
    )


def _warn_missing() -> None:
    logger.warning("ONNX Runtime is not installed: verifying against stock TVM, slowly")


def _warn_inexact(reason: str) -> None:
    first = (reason.strip().splitlines() or [""])[0]
    logger.warning(
        "there are no results in float64 (%s): errors are those against ONNX Runtime, "
        "and may be as large as it differs from itself",
        first,
    )


def _warn_refused(reason: str) -> None:
    first = (reason.strip().splitlines() or [""])[0]
    logger.warning(
        "ONNX Runtime refuses the model (%s): verifying against stock TVM, which shares the import",
        first,
    )
