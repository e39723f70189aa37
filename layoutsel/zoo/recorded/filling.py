"""Random weights for a graph that declares only their shapes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper

from layoutsel.zoo.random_weights import HE_GAIN, random_weight

LOCATION = "random"
"""Location of the external data of a weight that the graph only declares."""

_MOVING = frozenset(
    {
        "Cast", "Concat", "Expand", "Identity", "Reshape", "Slice", "Split", "Squeeze",
        "Transpose", "Unsqueeze",
    }
)  # fmt: skip
"""Operators that only move the elements of a weight to its consumer."""

_AS: Mapping[tuple[str, int], tuple[str, int]] = {
    ("Div", 0): ("BatchNormalization", 1),
    ("Div", 1): ("BatchNormalization", 1),
    ("GroupNormalization", 1): ("BatchNormalization", 1),
    ("InstanceNormalization", 1): ("BatchNormalization", 1),
    ("Mul", 0): ("BatchNormalization", 1),
    ("Mul", 1): ("BatchNormalization", 1),
    ("RMSNormalization", 1): ("BatchNormalization", 1),
}
"""Equivalent role of a weight whose operator :func:`random_weight` does not know."""

_GAINS: Mapping[str, float] = {
    **dict.fromkeys(("Clip", "LeakyRelu", "PRelu", "Relu"), HE_GAIN),
    **dict.fromkeys(("Div", "Erf", "Gelu"), 2.4),
    "HardSwish": 3.0,
    "Sigmoid": 2.8,
}
"""Gain of a matrix before an activation: one over its mean square for standard normal numbers.

Exporters write SiLU as the product of a Sigmoid with its input, and GELU with a division first.
"""
_LINEAR_GAIN = 1.0
"""Gain of a matrix without an activation; sums along residual connections would grow otherwise."""


def is_declared(tensor: TensorProto) -> bool:
    """Return True for a weight without values."""
    return any(
        entry.key == "location" and entry.value == LOCATION for entry in tensor.external_data
    )


def declare(tensor: TensorProto, name: str, data_type: int, dims: Sequence[int]) -> None:
    """Make `tensor` a weight without values."""
    tensor.Clear()
    tensor.name, tensor.data_type = name, data_type
    tensor.dims.extend(dims)
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=LOCATION)


def fill(model: ModelProto, seed: int = 0) -> None:
    """Give every declared weight random values that suit the operator that reads it.

    Parameters
    ----------
    model
        Model, which is changed.
    seed
        Seed of the weights; equal seeds give equal models.
    """
    rng = np.random.default_rng(seed)
    readers = _readers(model.graph.node)
    constants = {tensor.name for tensor in model.graph.initializer}
    for tensor in model.graph.initializer:
        if not is_declared(tensor):
            continue
        op_type, position, shape, gain = _role(tensor, readers, constants)
        role = _AS.get((op_type, position), (op_type, position))
        values = random_weight(rng, *role, shape, gain)
        dtype = helper.tensor_dtype_to_np_dtype(tensor.data_type)
        tensor.ClearField("external_data")
        tensor.ClearField("data_location")
        tensor.raw_data = values.astype(dtype, copy=False).tobytes()


def _readers(nodes: Iterable[NodeProto]) -> dict[str, tuple[NodeProto, int]]:
    """First consumer of each tensor, with the index of the input."""
    readers: dict[str, tuple[NodeProto, int]] = {}
    for node in nodes:
        for position, name in enumerate(node.input):
            readers.setdefault(name, (node, position))
    return readers


def _role(
    tensor: TensorProto,
    readers: Mapping[str, tuple[NodeProto, int]],
    constants: AbstractSet[str],
) -> tuple[str, int, tuple[int, ...], float]:
    """Operator that uses a weight, the index of the input, the shape for its scale, and its gain.

    The values are drawn in the order of `tensor`, so only the extents of the shape matter.
    """
    shape, name = tuple(tensor.dims), tensor.name
    while name in readers:
        node, position = readers[name]
        if node.op_type not in _MOVING or not node.output:
            return _known_operator(node), position, shape, _gain(node, readers, constants)
        axes = _attribute(node, "perm", range(len(shape))[::-1])
        if node.op_type == "Transpose" and len(axes) == len(shape):
            shape = tuple(shape[axis] for axis in axes)
        name = node.output[0]
    return "", 0, shape, _LINEAR_GAIN


def _known_operator(node: NodeProto) -> str:
    """Operator of a node; a Gemm whose matrix is not transposed is a MatMul."""
    is_plain = node.op_type == "Gemm" and not _attribute(node, "transB", 0)
    return "MatMul" if is_plain else node.op_type


def _gain(
    node: NodeProto, readers: Mapping[str, tuple[NodeProto, int]], constants: AbstractSet[str]
) -> float:
    """Gain of a matrix of `node`, by the activation that follows, perhaps after a bias."""
    following = readers.get(node.output[0])
    while following is not None and _is_affine(following[0], constants):
        following = readers.get(following[0].output[0])
    return _LINEAR_GAIN if following is None else _GAINS.get(following[0].op_type, _LINEAR_GAIN)


def _is_affine(node: NodeProto, constants: AbstractSet[str]) -> bool:
    """Return True for the addition of a constant, and for a batch normalisation."""
    is_bias = node.op_type == "Add" and not constants.isdisjoint(node.input)
    return is_bias or node.op_type == "BatchNormalization"


def _attribute(node: NodeProto, name: str, default: Any) -> Any:
    found = next((one for one in node.attribute if one.name == name), None)
    return default if found is None else helper.get_attribute_value(found)
