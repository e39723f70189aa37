"""ONNX Runtime's results for a model and the logits of its final softmaxes, without TVM."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx

from layoutsel.references.reference_engine import import_onnxruntime, open_session

SOFTMAX = ("Softmax", "LogSoftmax")
"""Operators whose inputs are logits."""
RENAMING = ("Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity")
"""Operators that may follow a final softmax without changing its values."""


def onnx_softmaxes(model: onnx.ModelProto) -> dict[str, str]:
    """Name of the logits of each output that a final softmax computes, by name of the output.

    The pass ``ExposeLogits`` finds the same outputs and logits.
    """
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
    """Names of the inputs of final softmaxes, without repetition."""
    return list(dict.fromkeys(onnx_softmaxes(model).values()))


def onnxruntime_reference(
    model: onnx.ModelProto, inputs: Mapping[str, np.ndarray], *, optimised: bool = True
) -> list[np.ndarray]:
    """Run ONNX Runtime in this process without limits; logits of final softmaxes come last."""
    session = open_session(expose_logits(model), session_options(optimised=optimised))
    return list(session.run(None, dict(inputs)))


def session_options(*, optimised: bool) -> Any:
    """Options of ONNX Runtime as a silent reference, with or without its optimisations."""
    onnxruntime = import_onnxruntime()
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    if not optimised:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return options


def expose_logits(model: onnx.ModelProto) -> onnx.ModelProto:
    """Copy `model` with the logits of final softmaxes as additional outputs."""
    exposed = onnx.ModelProto()
    exposed.CopyFrom(model)
    exposed.graph.output.extend(onnx.ValueInfoProto(name=name) for name in onnx_logits(model))
    return exposed
