"""Nine real networks from the ``onnx`` package, with seeded random weights."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
from onnx import ModelProto, helper, numpy_helper

from layoutsel.errors import InvalidModel
from layoutsel.zoo.random_weights import random_weight

PREFIX = "light:"
"""Start of the names of these models, such as ``light:resnet50``."""
_BATCH = "@"
"""Separator between a name and a batch size: ``light:resnet50@8``."""

LIGHT_MODELS = (
    "bvlc_alexnet",
    "densenet121",
    "inception_v1",
    "inception_v2",
    "resnet50",
    "shufflenet",
    "squeezenet",
    "vgg19",
    "zfnet512",
)
"""Names of the models, without :data:`PREFIX`."""

_FILES = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"
"""Folder of the models' files."""
_IR_VERSION = 8
"""Version of ONNX's file format."""


def light_model(name: str, seed: int = 0) -> ModelProto:
    """Build a network with weights of :func:`layoutsel.zoo.random_weights.random_weight`.

    Parameters
    ----------
    name
        One of :data:`LIGHT_MODELS`, optionally followed by ``@`` and a batch size.
    seed
        Seed of the weights; equal seeds give equal models.

    Raises
    ------
    InvalidModel
        If there is no network of that name, or the batch size is not a positive number.
    """
    name, has_batch, batch = name.partition(_BATCH)
    if name not in LIGHT_MODELS:
        raise InvalidModel(f"no model {PREFIX}{name}: choose one of {', '.join(LIGHT_MODELS)}")
    if has_batch and not (batch.isdecimal() and int(batch) > 0):
        raise InvalidModel(
            f"model {PREFIX}{name}{_BATCH}{batch}: got batch {batch!r}; expected a positive "
            f"number, such as {PREFIX}{name}{_BATCH}8"
        )
    source = onnx.load(_FILES / f"light_{name}.onnx")
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in source.graph.initializer}
    shapes = _placeholder_shapes(source, stored)
    nodes = [node for node in source.graph.node if node.op_type != "ConstantOfShape"]
    graph = helper.make_graph(
        nodes,
        source.graph.name,
        [value for value in source.graph.input if value.name not in stored],
        list(source.graph.output),
    )
    model = helper.make_model(
        graph, opset_imports=list(source.opset_import), ir_version=_IR_VERSION
    )
    _add_weights(model.graph, stored, shapes, seed)
    if has_batch:
        set_batch(model.graph, int(batch))
    return model


def set_batch(graph: onnx.GraphProto, batch: int) -> None:
    """Change the batch size of inputs and outputs; reshapes to batch 1 keep that of their input."""
    for value in (*graph.input, *graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = batch
    targets = {node.input[1] for node in graph.node if node.op_type == "Reshape"}
    for tensor in graph.initializer:
        if tensor.name in targets:
            shape = numpy_helper.to_array(tensor).copy()
            shape[0] = 0 if shape[0] == 1 else shape[0]
            tensor.CopyFrom(numpy_helper.from_array(shape, tensor.name))


def _placeholder_shapes(
    source: ModelProto, stored: Mapping[str, np.ndarray]
) -> dict[str, tuple[int, ...]]:
    """Shapes of the weights that the file replaces by ``ConstantOfShape``."""
    return {
        node.output[0]: tuple(int(size) for size in stored[node.input[0]])
        for node in source.graph.node
        if node.op_type == "ConstantOfShape"
    }


def _add_weights(
    graph: onnx.GraphProto,
    stored: Mapping[str, np.ndarray],
    placeholders: Mapping[str, tuple[int, ...]],
    seed: int,
) -> None:
    """Append random weights one by one; vgg19 has one of 411 MB, which must not be copied."""
    rng = np.random.default_rng(seed)
    roles: dict[str, tuple[str, int]] = {}
    for node in graph.node:
        for position, name in enumerate(node.input):
            roles.setdefault(name, (node.op_type, position))
    shapes = {name: array.shape for name, array in stored.items()} | dict(placeholders)
    for name, shape in shapes.items():
        if name not in roles:
            continue
        is_integer = name in stored and stored[name].dtype != np.float32
        array = stored[name] if is_integer else random_weight(rng, *roles[name], shape)
        dtype = helper.np_dtype_to_tensor_dtype(array.dtype)
        data = array.tobytes()
        del array
        graph.initializer.add(name=name, dims=shape, data_type=dtype, raw_data=data)
