"""Multi-exit networks with random weights, as ONNX models."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import ModelProto, TensorProto, helper, numpy_helper

CLASSES = 10


class Builder:
    """Network that grows layer by layer."""

    def __init__(self, opset: int = 18, seed: int = 0) -> None:
        self.rng = np.random.default_rng(seed)
        self.opset = opset
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[TensorProto] = []
        self.inputs: list[onnx.ValueInfoProto] = []
        self.outputs: list[onnx.ValueInfoProto] = []
        self.channels: dict[str, int] = {}

    def input(self, name: str, shape: tuple[int | str, ...] = (1, 4, 8, 8)) -> str:
        self.inputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))
        self.channels[name] = shape[1]
        return name

    def node(self, operator: str, *inputs: str, out: str = "", **attributes: object) -> str:
        out = out or f"{operator.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, inputs, [out], name=out, **attributes))
        self.channels[out] = self.channels.get(inputs[0], 0) if inputs else 0
        return out

    def weight(self, *shape: int) -> str:
        name = f"weight_{len(self.weights)}"
        values = self.rng.standard_normal(shape) / np.sqrt(np.prod(shape[1:]))
        self.weights.append(numpy_helper.from_array(values.astype("float32"), name))
        return name

    def conv(self, x: str, channels: int, out: str = "") -> str:
        weight = self.weight(channels, self.channels[x], 3, 3)
        y = self.node("Conv", x, weight, kernel_shape=[3, 3], pads=[1] * 4)
        self.channels[y] = channels
        return self.node("Relu", y, out=out)

    def add(self, x: str, y: str) -> str:
        return self.node("Add", x, y)

    def head(self, x: str, name: str, classes: int = CLASSES) -> str:
        """Pool, and end in logits as an output of the model."""
        y = self.node("Flatten", self.node("GlobalAveragePool", x))
        return self.linear(y, name, self.channels[x], classes)

    def linear(self, x: str, name: str, width: int, classes: int = CLASSES) -> str:
        self.node("MatMul", x, self.weight(width, classes), out=name)
        self.channels[name] = classes
        return self.output(name, (1, classes))

    def output(
        self, name: str, shape: tuple[int | str, ...], dtype: int = TensorProto.FLOAT
    ) -> str:
        self.outputs.append(helper.make_tensor_value_info(name, dtype, shape))
        return name

    def model(self) -> ModelProto:
        graph = helper.make_graph(self.nodes, "net", self.inputs, self.outputs, self.weights)
        opsets = [helper.make_opsetid("", self.opset)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
        onnx.checker.check_model(model, full_check=True)
        return model


def chain() -> ModelProto:
    """Convolutions in a row, an exit after each; the outputs are listed in another order."""
    net = Builder()
    x = net.input("x")
    for name in ("e1", "e2", "last"):
        x = net.conv(x, 8)
        net.head(x, name)
    net.outputs.reverse()
    return net.model()


def residual() -> ModelProto:
    """A residual block: its exit adds two tensors of the trunk, before the trunk adds others."""
    net = Builder()
    a = net.conv(net.input("x"), 8)
    b = net.conv(a, 8)
    net.head(net.node("Mul", a, b), "e1")
    c = net.conv(net.add(a, b), 8)
    net.head(net.add(c, a), "last")
    return net.model()


def multi_scale() -> ModelProto:
    """Two scales side by side, as in MSDNet; the exits read both, and share a tap."""
    net = Builder()
    fine = net.conv(net.input("x"), 8)
    coarse = net.conv(net.node("MaxPool", fine, kernel_shape=[2, 2], strides=[2, 2]), 8)
    for number in (1, 2):
        pooled = net.node("GlobalAveragePool", fine)
        both = net.node("Concat", pooled, net.node("GlobalAveragePool", coarse), axis=1)
        net.linear(net.node("Flatten", both), f"e{number}", 16)
        fine = net.conv(fine, 8)
    joined = net.node("Concat", net.node("GlobalAveragePool", fine), pooled, axis=1)
    net.linear(net.node("Flatten", joined), "last", 16)
    return net.model()


def cascade() -> ModelProto:
    """The second exit adds the logits of the first to its own."""
    net = Builder()
    x = net.conv(net.input("x"), 8)
    first = net.head(x, "e1")
    y = net.conv(x, 8)
    own = net.node(
        "MatMul", net.node("Flatten", net.node("GlobalAveragePool", y)), net.weight(8, 10)
    )
    net.output(net.node("Add", own, first, out="e2"), (1, CLASSES))
    net.head(net.conv(y, 8), "last")
    return net.model()


def stacked() -> ModelProto:
    """The final exit adds the logits of the first to its own."""
    net = Builder()
    x = net.conv(net.input("x"), 8)
    first = net.head(x, "e1")
    pooled = net.node("GlobalAveragePool", net.conv(x, 8))
    own = net.node("MatMul", net.node("Flatten", pooled), net.weight(8, 10))
    net.output(net.node("Add", own, first, out="last"), (1, CLASSES))
    return net.model()


def on_input() -> ModelProto:
    """The first exit reads nothing but the network's input."""
    net = Builder()
    x = net.input("x")
    net.head(x, "e1")
    net.head(net.conv(x, 8), "last")
    return net.model()


def shared_tap() -> ModelProto:
    """Two exits read the same tensor of the trunk."""
    net = Builder()
    x = net.conv(net.input("x"), 8)
    net.head(x, "e1")
    net.head(net.node("Relu", net.node("Neg", x)), "e2")
    net.head(net.conv(x, 8), "last")
    return net.model()


def mixed_types() -> ModelProto:
    """The values of the first exit are in float64, those of the final one in float32."""
    net = Builder()
    x = net.conv(net.input("x"), 8)
    pooled = net.node("Flatten", net.node("GlobalAveragePool", x))
    logits = net.node("MatMul", pooled, net.weight(8, CLASSES))
    values = net.node("Cast", logits, out="e1", to=TensorProto.DOUBLE)
    net.output(values, (1, CLASSES), TensorProto.DOUBLE)
    net.head(net.conv(x, 8), "last")
    return net.model()


def wide_head() -> ModelProto:
    """The branch of the first exit is more work than the whole trunk."""
    net = Builder()
    x = net.conv(net.input("x"), 4)
    net.head(net.conv(net.conv(x, 32), 32), "e1")
    net.head(net.conv(x, 8), "last")
    return net.model()


NETWORKS = {
    made.__name__: made
    for made in (
        chain,
        residual,
        multi_scale,
        cascade,
        stacked,
        on_input,
        shared_tap,
        mixed_types,
        wide_head,
    )
}
