"""Removal of weights and notes from an exported graph."""

from __future__ import annotations

import math

import numpy as np
from onnx import ModelProto, TensorProto, numpy_helper

from layoutsel.zoo.recorded.filling import declare

_FLOATS = frozenset(
    {TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE, TensorProto.BFLOAT16}
)
"""Element types of weights; integers and booleans are shapes, indices and masks."""
_FEW_ELEMENTS = 8
"""Largest number of elements of a constant that is no weight, such as the scales of a Resize."""
_FEW_VALUES = 16
"""Largest number of distinct values of a constant that is no weight, such as a mask."""


def strip(model: ModelProto, name: str) -> None:
    """Name the graph, declare its weights without values, and remove its notes.

    Parameters
    ----------
    model
        Model, which is changed.
    name
        New name of the graph.
    """
    graph = model.graph
    graph.name = name
    for owner in (model, graph, *graph.node, *graph.input, *graph.output):
        owner.ClearField("doc_string")
        owner.ClearField("metadata_props")
    graph.ClearField("value_info")
    _constants_to_initializers(model)
    for tensor in graph.initializer:
        tensor.ClearField("doc_string")
        tensor.ClearField("metadata_props")
        if _is_weight(tensor):
            declare(tensor, tensor.name, tensor.data_type, tuple(tensor.dims))


def _constants_to_initializers(model: ModelProto) -> None:
    """Turn nodes with a weight into initializers."""
    kept = []
    for node in model.graph.node:
        value = node.attribute[0].t if node.op_type == "Constant" and node.attribute else None
        if value is not None and _is_weight(value):
            tensor = model.graph.initializer.add()
            tensor.CopyFrom(value)
            tensor.name = node.output[0]
        else:
            kept.append(node)
    if len(kept) < len(model.graph.node):
        copies = [type(node).FromString(node.SerializeToString()) for node in kept]
        model.graph.ClearField("node")
        model.graph.node.extend(copies)


def _is_weight(tensor: TensorProto) -> bool:
    """Return True for a float constant without structure: neither scalars nor a mask."""
    if tensor.data_type not in _FLOATS or math.prod(tensor.dims) <= _FEW_ELEMENTS:
        return False
    values = np.unique(numpy_helper.to_array(tensor).astype(np.float64))
    if len(values) == 1:  # as initialised: zeros, ones, small scales
        return bool(abs(values[0]) <= 1)
    return len(values) > _FEW_VALUES
