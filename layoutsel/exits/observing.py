"""Observation of a multi-exit network: ONNX Runtime computes all exits of all samples."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
from onnx import helper

from layoutsel.device.signature import Signature
from layoutsel.device.worker import Reply, Worker
from layoutsel.exits.matrix import ExitMatrix, MatrixError
from layoutsel.exits.network import ExitNetwork
from layoutsel.exits.samples import read_samples
from layoutsel.exits.scores import RESULTS
from layoutsel.references.reference_worker import MISSING
from layoutsel.references.reference_worker import RESULTS as COMPUTED
from layoutsel.references.stored_model import StoredModel

TIME_LIMIT_S = 600.0
"""Default time limit for all samples, seconds."""
_MOST_BYTES = 1 << 26
"""Largest size of the inputs that are sent to the child process at once, bytes."""


def observe(
    network: ExitNetwork,
    data: Path | str,
    *,
    score: str | None = None,
    time_limit_s: float = TIME_LIMIT_S,
) -> ExitMatrix:
    """Compute score and prediction of each exit for all samples of a file, in a child process.

    Parameters
    ----------
    network
        The network.
    data
        An ``.npz`` file with an array for each input of the network, samples along the first axis,
        and optionally ``labels``, the true classes.
    score
        Entry of :data:`layoutsel.exits.scores.SCORES`; by default the network's own.
    time_limit_s
        Time limit for all samples, seconds.

    Raises
    ------
    MatrixError
        If the samples do not fit the network, or it cannot run within the limits.
    """
    inputs = _inputs(network)
    found = read_samples(data, inputs, network.classes)
    names = [one.name for one in inputs]
    samples = [dict(zip(names, one, strict=True)) for one in found.inputs]
    score = network.score if score is None else score
    scores, predictions = [], []
    for results in _results(network, score, samples, time_limit_s):
        exits = [results[i : i + RESULTS] for i in range(0, len(network.names) * RESULTS, RESULTS)]
        scores.append([float(found.item()) for _, found, _ in exits])
        predictions.append([int(label.item()) for *_, label in exits])
    return ExitMatrix(
        exits=network.names,
        score=score,
        # Rounding of probabilities may exceed the range by some 1e-7; NaN stays.
        scores=np.clip(np.array(scores, np.float64), 0.0, 1.0),
        predictions=np.array(predictions, np.int64),
        labels=found.labels,
        model_hash=network.spec.model_hash,
    )


def _inputs(network: ExitNetwork) -> list[Signature]:
    weights = {tensor.name for tensor in network.source.graph.initializer}
    return [
        Signature(
            name=value.name,
            shape=tuple(one.dim_value for one in value.type.tensor_type.shape.dim),
            dtype=str(helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)),
        )
        for value in network.source.graph.input
        if value.name not in weights
    ]


def _results(
    network: ExitNetwork,
    score: str,
    samples: Sequence[dict[str, np.ndarray]],
    time_limit_s: float,
) -> Iterator[list[np.ndarray]]:
    """Results of each sample, in the order of the scored model's outputs."""
    end = time.monotonic() + time_limit_s
    bytes_each = sum(array.nbytes for array in samples[0].values())
    rest = iter(samples)
    try:
        stored = StoredModel.of(network.scored(score))
    except OSError as error:
        raise MatrixError(
            f"{network.name}: its weights cannot be written for ONNX Runtime ({error.strerror}). "
            f"Make room in the folder for temporary files (TMPDIR)"
        ) from error
    payload = {"reference": "onnxruntime", "optimised": True, **stored.payload()}
    function = "layoutsel.references.reference_worker:compute"
    with Worker(function, time_limit_s=time_limit_s) as worker:
        while chunk := list(islice(rest, max(1, _MOST_BYTES // max(1, bytes_each)))):
            reply = worker.call({**payload, "samples": chunk}, max(end - time.monotonic(), 0.001))
            if not isinstance(reply, Reply):
                raise MatrixError(
                    f"{network.name}: ONNX Runtime did not compute {len(samples)} samples: "
                    f"{reply.reason}. Use fewer samples, or allow more time"
                )
            kind, value = reply.value
            if kind == MISSING:
                raise MatrixError(
                    f"ONNX Runtime is needed to observe exits, and cannot be imported: {value}. "
                    f"Install it: pip install onnxruntime"
                )
            if kind != COMPUTED:
                raise MatrixError(f"{network.name}: ONNX Runtime refuses the model: {value}")
            yield from value
