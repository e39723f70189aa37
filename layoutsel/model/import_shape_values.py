"""Values of small constants that shapes are computed from."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import onnx_ir as ir
from onnx import NodeProto

from layoutsel.model.import_evaluation import SMALL, evaluate
from layoutsel.model.import_facts import is_small
from tvm_passes.onnx.facts import TensorFacts

_OF_SHAPES = frozenset(
    [
        "Abs",
        "Add",
        "And",
        "Cast",
        "Ceil",
        "Concat",
        "ConstantOfShape",
        "Div",
        "Equal",
        "Expand",
        "Floor",
        "Gather",
        "Greater",
        "GreaterOrEqual",
        "Identity",
        "Less",
        "LessOrEqual",
        "Max",
        "Min",
        "Mod",
        "Mul",
        "Neg",
        "Not",
        "Or",
        "Range",
        "ReduceMax",
        "ReduceMin",
        "ReduceProd",
        "ReduceSum",
        "Reshape",
        "Round",
        "Slice",
        "Sqrt",
        "Squeeze",
        "Sub",
        "Tile",
        "Transpose",
        "Unsqueeze",
        "Where",
    ]
)
"""Operators that compute shapes; their work is proportional to the size of their result."""


def with_value(
    node: ir.Node,
    inputs: Sequence[TensorFacts | None],
    results: list[TensorFacts | None],
    opset: int,
) -> list[TensorFacts | None]:
    """Add the value to a small result of small constants, by ONNX's operator set `opset`."""
    result = results[0]
    if len(results) != 1 or result is None or node.domain not in ("", "ai.onnx"):
        return results
    value: np.ndarray | None = None
    if node.op_type in ("Shape", "Size"):
        value = _shape_value(node, inputs[0])
    elif node.op_type in _OF_SHAPES and is_small(result):
        arrays = [facts.value if facts else None for facts in inputs]
        given = [array for array, slot in zip(arrays, node.inputs, strict=True) if slot is not None]
        if all(array is not None and array.size <= SMALL for array in given):
            found = evaluate(detached(node), arrays, opset)
            value = found[0] if found else None
    elif node.op_type == "Constant":
        found = evaluate(detached(node), [], opset)
        value = found[0] if found else None
    if value is None:
        return results
    return [TensorFacts(shape=value.shape, dtype=result.dtype, value=value)]


def detached(node: ir.Node) -> NodeProto:
    """Copy a node with values named by their positions."""
    proto = ir.serde.serialize_node(node)
    inputs = [f"i{index}" if value is not None else "" for index, value in enumerate(node.inputs)]
    del proto.input[:], proto.output[:]
    proto.input.extend(inputs)
    proto.output.extend(
        f"o{index}" if value.name else "" for index, value in enumerate(node.outputs)
    )
    return proto


def _shape_value(node: ir.Node, data: TensorFacts | None) -> np.ndarray | None:
    if data is None or data.shape is None or None in data.shape:
        return None
    if node.op_type == "Size":
        return np.asarray(math.prod(d for d in data.shape if d is not None), "int64")
    start, end = (node.attributes.get(name) for name in ("start", "end"))
    cut = slice(start and start.as_int(), end and end.as_int())
    return np.asarray(data.shape[cut], "int64")
