"""Small models that tests of the runtime share."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

IMAGE = (1, 8, 10, 10)


def convolution(seed: int = 0) -> onnx.ModelProto:
    """A convolution of an image ``x``, and a ReLU."""
    weights = np.random.default_rng(seed).standard_normal((8, 8, 3, 3)).astype(np.float32)
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["y"]),
    ]
    return model_of(nodes, {"x": IMAGE}, {"y": IMAGE}, {"w": weights})


def image(seed: int = 0) -> np.ndarray:
    """An image for :func:`convolution`."""
    return np.random.default_rng(seed).standard_normal(IMAGE).astype(np.float32)


def model_of(
    nodes: Sequence[onnx.NodeProto],
    inputs: dict[str, Sequence[int]],
    outputs: dict[str, Sequence[int]] | list[tuple[str, Sequence[int]]],
    weights: dict[str, np.ndarray],
) -> onnx.ModelProto:
    """A model of float32."""

    def info(name: str, shape: Sequence[int]) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)

    graph = helper.make_graph(
        nodes,
        "small",
        [info(*each) for each in inputs.items()],
        [info(*each) for each in (outputs.items() if isinstance(outputs, dict) else outputs)],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
