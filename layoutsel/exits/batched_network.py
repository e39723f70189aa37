"""ONNX models for several samples at once, made of models for one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import onnx
from onnx import GraphProto, ModelProto, NodeProto, numpy_helper, shape_inference

from layoutsel.errors import NoBatches

_TARGETS: Mapping[str, int] = {"Reshape": 1, "Resize": 3}
"""Input of an operator that holds the shape of its result."""
_OF_SHAPES = ("Shape", "Size")
"""Operators whose results depend on shapes alone."""
_ADVICE = "Compile the network without batches"
Shapes = Mapping[str, tuple[int, ...]]
"""Static shapes by name of a tensor."""


def with_batch(model: ModelProto, batch: int) -> ModelProto:
    """Copy a model for one sample, as one for `batch` samples along the first axis.

    Every tensor that depends on an input must have a row for each sample. Operators that mix rows
    without changing a shape, such as a softmax along the first axis, are not found here: compare
    results.

    Parameters
    ----------
    model
        Model with fixed shapes.
    batch
        Number of samples.

    Raises
    ------
    NoBatches
        If a tensor is not made of rows; names its node.
    """
    single = _shapes(model)
    made = ModelProto()
    made.CopyFrom(model)
    graph = made.graph
    del graph.value_info[:]
    depends = _dependent(graph)
    for value in (*graph.input, *graph.output):
        if value.name in depends:
            _check(value.name, single.get(value.name), batch, "", "")
            value.type.tensor_type.shape.dim[0].dim_value = batch
    _retarget(graph, depends, batch)
    found = _shapes(_open_ended(made))
    for node in graph.node:
        for name in node.output:
            if name in depends:
                _check(name, single.get(name), batch, node.op_type, node.name, found.get(name, ()))
    return made


def _check(
    name: str,
    shape: tuple[int, ...] | None,
    batch: int,
    operator: str,
    node: str,
    found: tuple[int, ...] | None = None,
) -> None:
    """Reject a tensor without a row for each sample; `found` is its shape in the new model."""
    where = f"of node {node!r} ({operator})" if operator else "input or output"
    if shape is None or not shape or shape[0] != 1:
        got = "an unknown shape" if shape is None else f"the shape {shape} for one sample"
        raise NoBatches(
            f"tensor {name!r}, {where}: got {got}; expected (1, …), a row for each sample. "
            f"{_ADVICE}"
        )
    if found is not None and found != (batch, *shape[1:]):
        got = f"the shape {found}" if found else "an unknown shape"
        raise NoBatches(
            f"tensor {name!r}, {where}: got {got} for {batch} samples; expected "
            f"{(batch, *shape[1:])}, a row for each of them. {_ADVICE}"
        )


def _shapes(model: ModelProto) -> Shapes:
    """Static shapes of all tensors of which they are known."""
    try:
        inferred = shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
    except (shape_inference.InferenceError, onnx.checker.ValidationError) as error:
        reason = str(error).strip().splitlines()[-1]
        raise NoBatches(f"shapes for several samples contradict: {reason}. {_ADVICE}") from error
    found = {}
    graph = inferred.graph
    for value in (*graph.input, *graph.value_info, *graph.output):
        kind = value.type.tensor_type
        dims = kind.shape.dim if kind.HasField("shape") else None
        if dims is not None and all(dim.HasField("dim_value") for dim in dims):
            found[value.name] = tuple(int(dim.dim_value) for dim in dims)
    return found


def _open_ended(model: ModelProto) -> ModelProto:
    """Copy a model without the declared shapes of its outputs, which may be wrong."""
    made = ModelProto()
    made.CopyFrom(model)
    for value in made.graph.output:
        value.type.tensor_type.ClearField("shape")
    return made


def _dependent(graph: GraphProto) -> set[str]:
    """Names of the tensors that depend on an input's values; the nodes are in a valid order."""
    stored = {tensor.name for tensor in graph.initializer}
    found = {value.name for value in graph.input} - stored
    for node in graph.node:
        if node.op_type not in _OF_SHAPES and found.intersection(node.input):
            found.update(name for name in node.output if name)
    return found


def _retarget(graph: GraphProto, depends: set[str], batch: int) -> None:
    """Replace constant shapes (1, …) of results by (batch, …)."""
    for node, place in _shaped(graph, depends):
        target = _constant(graph, node.input[place])
        if target is None or not target.size or target[0] != 1:
            continue
        changed = target.copy()
        changed[0] = batch
        name = f"{node.input[place]}/{batch}/{node.output[0]}"
        graph.initializer.append(numpy_helper.from_array(changed, name))
        node.input[place] = name


def _shaped(graph: GraphProto, depends: set[str]) -> Iterator[tuple[NodeProto, int]]:
    """Yield nodes whose result has a shape that another input holds, and the place of that."""
    for node in graph.node:
        place = _TARGETS.get(node.op_type)
        if place is not None and len(node.input) > place and node.input[0] in depends:
            yield node, place


def _constant(graph: GraphProto, name: str) -> np.ndarray | None:
    """Value of an initializer or a constant node."""
    for tensor in graph.initializer:
        if tensor.name == name:
            return numpy_helper.to_array(tensor)
    for node in graph.node:
        if node.op_type == "Constant" and name in node.output:
            for attribute in node.attribute:
                if attribute.name == "value":
                    return numpy_helper.to_array(attribute.t)
    return None
