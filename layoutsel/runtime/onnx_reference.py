"""ONNX Runtime's results for a model and the logits of its final softmaxes. Importing this does not import TVM."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import onnx

from layoutsel.runtime.reference_engine import import_onnxruntime, open_session

SOFTMAX = ("Softmax", "LogSoftmax")
RENAMING = ("Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity")


def onnx_softmaxes(model: onnx.ModelProto) -> dict[str, str]:
    """What a final softmax makes and what it reads: logits by output, as ``ExposeLogits`` finds them."""
    maker = {name: node for node in model.graph.node for name in node.output}
    found: dict[str, str] = {}
    for output in model.graph.output:
        node = maker.get(output.name)
        while node is not None and node.op_type in RENAMING:
            node = maker.get(node.input[0])
        if node is not None and node.op_type in SOFTMAX and node.input[0] in maker:
            found[output.name] = node.input[0]
    return found


def onnx_logits(model: onnx.ModelProto) -> list[str]:
    """Names of the tensors that final softmaxes read, each once."""
    return list(dict.fromkeys(onnx_softmaxes(model).values()))


def onnxruntime_reference(
    model: onnx.ModelProto, inputs: Mapping[str, np.ndarray], *, optimised: bool = True
) -> list[np.ndarray]:
    """Results of ONNX Runtime, and behind them the logits of final softmaxes."""
    (results,) = onnxruntime_references(model, [inputs], optimised=optimised)
    return results


def onnxruntime_references(
    model: onnx.ModelProto,
    samples: Iterable[Mapping[str, np.ndarray]],
    *,
    optimised: bool = True,
    limit_s: float = math.inf,
) -> list[list[np.ndarray]]:
    """The same of each of `samples`, by one session.

    Raises
    ------
    TimeoutError
        If the runs take longer than `limit_s` seconds.
    """
    onnxruntime = import_onnxruntime()
    session = open_session(expose_logits(model), session_options(optimised=optimised))
    run_options = onnxruntime.RunOptions()
    with _ending(run_options, limit_s) as ended:
        try:
            return [session.run(None, dict(inputs), run_options) for inputs in samples]
        except Exception:
            if ended.is_set():
                raise TimeoutError from None
            raise


@contextmanager
def _ending(run_options: Any, limit_s: float) -> Iterator[threading.Event]:
    """Have ONNX Runtime end its runs after `limit_s` seconds; the event says whether it did."""
    ended = threading.Event()

    def end() -> None:
        ended.set()
        run_options.terminate = True

    timer = threading.Timer(min(limit_s, threading.TIMEOUT_MAX), end)
    timer.daemon = True
    timer.start()
    try:
        yield ended
    finally:
        timer.cancel()


def session_options(*, optimised: bool) -> Any:
    """Options of ONNX Runtime as a reference: silent, and with its optimisations or without."""
    onnxruntime = import_onnxruntime()
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    if not optimised:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return options


def expose_logits(model: onnx.ModelProto) -> onnx.ModelProto:
    """Copy of `model` with the logits of final softmaxes as further outputs."""
    exposed = onnx.ModelProto()
    exposed.CopyFrom(model)
    exposed.graph.output.extend(onnx.ValueInfoProto(name=name) for name in onnx_logits(model))
    return exposed
