"""Multi-exit networks with random weights, whose trunks take milliseconds and whose branches are a large part of the work.

Weights play no part in their speed. The convolutions of a branch run at the resolution of its tap, as in MSDNet.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import ModelProto, TensorProto, helper, numpy_helper

CLASSES = 10


@dataclass(frozen=True, kw_only=True)
class DeepNetwork:
    """Residual network with exits."""

    size: tuple[int, int]
    """Height and width of the input."""
    kernel: tuple[int, int]
    """Height and width of the kernels of all convolutions; odd numbers."""
    stages: tuple[tuple[int, int], ...]
    """Number of channels, and of residual blocks, of each stage; each one halves the resolution of the last."""
    exits: tuple[int, ...]
    """Number of blocks before each early exit, ascending."""
    branch: int
    """Number of convolutions of each branch."""


DEEP: Mapping[str, DeepNetwork] = {
    "signals": DeepNetwork(
        size=(1, 512), kernel=(1, 3), stages=((16, 180), (16, 180)), exits=(50, 110, 170), branch=90
    ),
    "echoes": DeepNetwork(
        size=(1, 384), kernel=(1, 5), stages=((16, 140), (16, 140)), exits=(40, 90, 140), branch=80
    ),
    "images": DeepNetwork(
        size=(48, 48),
        kernel=(3, 3),
        stages=((32, 6), (64, 6), (128, 6)),
        exits=(3, 7, 11),
        branch=4,
    ),
}
"""Networks by name: two of hundreds of small layers, which a second thread does not speed up, and one of fewer, larger layers."""


class _Builder:
    def __init__(self, network: DeepNetwork) -> None:
        self.network = network
        self.random = np.random.default_rng(0)
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[TensorProto] = []
        self.outputs: list[onnx.ValueInfoProto] = []

    def node(self, operator: str, *inputs: str, out: str = "", **attributes: object) -> str:
        out = out or f"{operator.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, inputs, [out], name=out, **attributes))
        return out

    def weight(self, *shape: int) -> str:
        name = f"weight_{len(self.weights)}"
        values = self.random.standard_normal(shape) / np.sqrt(2 * np.prod(shape[1:]))
        self.weights.append(numpy_helper.from_array(values.astype("float32"), name))
        return name

    def conv(self, x: str, given: int, made: int, step: int = 1, is_relu: bool = True) -> str:
        kernel = self.network.kernel
        weight = self.weight(made, given, *kernel)
        pads = 2 * [width // 2 for width in kernel]
        strides = [step if width > 1 else 1 for width in kernel]
        y = self.node("Conv", x, weight, kernel_shape=list(kernel), pads=pads, strides=strides)
        return self.node("Relu", y) if is_relu else y

    def block(self, x: str, given: int, made: int, step: int) -> str:
        y = self.conv(self.conv(x, given, made, step), made, made, is_relu=False)
        if (given, step) != (made, 1):
            x = self.conv(x, given, made, step, is_relu=False)
        return self.node("Relu", self.node("Add", y, x))

    def head(self, x: str, channels: int, name: str, convolutions: int = 0) -> None:
        for _ in range(convolutions):
            x = self.conv(x, channels, channels)
        y = self.node("Flatten", self.node("GlobalAveragePool", x))
        self.node("MatMul", y, self.weight(channels, CLASSES), out=name)
        self.outputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, (1, CLASSES)))


def made(network: DeepNetwork) -> ModelProto:
    """ONNX model of a network."""
    net = _Builder(network)
    shape = (1, 3, *network.size)
    channels = network.stages[0][0]
    x = net.conv("x", 3, channels)
    done = 0
    for number, (width, blocks) in enumerate(network.stages):
        for block in range(blocks):
            x = net.block(x, channels, width, 2 if number and not block else 1)
            channels = width
            done += 1
            if done in network.exits:
                name = f"exit{network.exits.index(done) + 1}"
                net.head(x, channels, name, network.branch)
    net.head(x, channels, "final")
    given = helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)
    graph = helper.make_graph(net.nodes, "net", [given], net.outputs, net.weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    return model
