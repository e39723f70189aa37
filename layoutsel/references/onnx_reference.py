"""ONNX Runtime's results for a model and the logits of its final softmaxes. Importing this does not import TVM."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx

from layoutsel.references.reference_engine import import_onnxruntime, open_session

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
    """Results of ONNX Runtime, then the logits of final softmaxes: in this process, and without a limit."""
    session = open_session(expose_logits(model), session_options(optimised=optimised))
    return list(session.run(None, dict(inputs)))


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
