"""Damaged and odd model files: bytes changed, and fields of the message changed to what nobody expects."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
from onnx import TensorProto

NUMBERS = (0, -1, 1, 2, 3, 7, 255, 10**6, 2**31 - 1, -(2**31), 2**62, -(2**63))
OPERATORS = (
    "Relu",
    "Add",
    "Conv",
    "MatMul",
    "Reshape",
    "Concat",
    "Loop",
    "NoSuchOperator",
    "Gather",
    "",
)
TYPES = (
    TensorProto.INT64,
    TensorProto.FLOAT16,
    TensorProto.STRING,
    TensorProto.BOOL,
    TensorProto.DOUBLE,
    99,
)

Rng = np.random.Generator
Mutation = Callable[[onnx.ModelProto, Rng], None]


def _pick(rng: Rng, choices):  # noqa: ANN001, ANN202 - any sequence
    return choices[int(rng.integers(len(choices)))]


def _attribute(model: onnx.ModelProto, rng: Rng) -> None:
    node = _pick(rng, model.graph.node)
    if not node.attribute:
        node.attribute.append(onnx.helper.make_attribute("axis", int(_pick(rng, NUMBERS))))
        return
    attribute = _pick(rng, node.attribute)
    if rng.random() < 0.2:
        attribute.name = _pick(rng, ("axis", "pads", "group", "no_such_attribute"))
    elif attribute.ints:
        attribute.ints[int(rng.integers(len(attribute.ints)))] = _pick(rng, NUMBERS)
        if rng.random() < 0.2:
            attribute.ints.append(_pick(rng, NUMBERS))
    else:
        attribute.i = _pick(rng, NUMBERS)


def _operator(model: onnx.ModelProto, rng: Rng) -> None:
    _pick(rng, model.graph.node).op_type = _pick(rng, OPERATORS)


def _edge(model: onnx.ModelProto, rng: Rng) -> None:
    node = _pick(rng, model.graph.node)
    names = [name for other in model.graph.node for name in (*other.input, *other.output)]
    field = node.input if rng.random() < 0.7 else node.output
    if field and rng.random() < 0.6:
        field[int(rng.integers(len(field)))] = _pick(rng, [*names, "", "nothing"])
    elif field and rng.random() < 0.5:
        del field[-1]
    else:
        field.append(_pick(rng, names))


def _nodes(model: onnx.ModelProto, rng: Rng) -> None:
    nodes = list(model.graph.node)
    kind = rng.integers(3)
    if kind == 0:
        nodes.append(_pick(rng, nodes))
    elif kind == 1:
        del nodes[int(rng.integers(len(nodes)))]
    else:
        rng.shuffle(nodes)
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del model.graph.node[:]
    model.graph.node.extend(copies)


def _weight(model: onnx.ModelProto, rng: Rng) -> None:
    if not model.graph.initializer:
        return
    tensor = _pick(rng, model.graph.initializer)
    kind = rng.integers(4)
    if kind == 0 and tensor.dims:
        tensor.dims[int(rng.integers(len(tensor.dims)))] = _pick(rng, NUMBERS)
    elif kind == 1:
        tensor.data_type = _pick(rng, TYPES)
    elif kind == 2:
        tensor.raw_data = tensor.raw_data[: int(rng.integers(len(tensor.raw_data) + 1))]
    else:
        size = len(tensor.raw_data) // 8 * 8
        tensor.raw_data = rng.bytes(size) + tensor.raw_data[size:]


def _input(model: onnx.ModelProto, rng: Rng) -> None:
    value = _pick(rng, [*model.graph.input, *model.graph.output])
    kind = rng.integers(4)
    tensor = value.type.tensor_type
    if kind == 0 and tensor.shape.dim:
        _pick(rng, tensor.shape.dim).dim_value = _pick(rng, NUMBERS)
    elif kind == 1:
        tensor.elem_type = _pick(rng, TYPES)
    elif kind == 2:
        value.name = _pick(rng, ("nothing", "", model.graph.node[0].output[0]))
    else:
        tensor.shape.dim.add().dim_value = _pick(rng, NUMBERS)


def _version(model: onnx.ModelProto, rng: Rng) -> None:
    if rng.random() < 0.8:
        model.opset_import[0].version = _pick(rng, (*NUMBERS, *range(1, 30)))
    else:
        model.ir_version = _pick(rng, NUMBERS)


MUTATIONS: tuple[Mutation, ...] = (
    _attribute, _attribute, _operator, _edge, _edge, _nodes, _weight, _weight, _input, _version,
)  # fmt: skip
"""What is changed in the message; common faults more than once."""


def mutated(file: bytes, seed: int) -> bytes:
    """`file` with one to three changes; the same ones for the same seed."""
    rng = np.random.default_rng(seed)
    if rng.random() < 0.3:
        return _bytes(file, rng)
    model = onnx.ModelProto.FromString(file)
    for _ in range(int(rng.integers(1, 4))):
        if model.graph.node:
            _pick(rng, MUTATIONS)(model, rng)
    return model.SerializeToString()


def _bytes(file: bytes, rng: Rng) -> bytes:
    data = bytearray(file)
    kind = rng.integers(3)
    if kind == 0:
        return bytes(data[: int(rng.integers(len(data)))])
    if kind == 1:
        start, end = sorted(rng.integers(len(data), size=2).tolist())
        return bytes(data[:end] + data[start:])
    for _ in range(int(rng.integers(1, 9))):
        data[int(rng.integers(len(data)))] ^= 1 << int(rng.integers(8))
    return bytes(data)
