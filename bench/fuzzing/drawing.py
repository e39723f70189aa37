"""A random ONNX graph under construction: values with their shapes, weights drawn where a node needs them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper, shape_inference

OPSET = 18
IR_VERSION = 8
MOST_ELEMENTS = 1 << 15
"""Elements of one tensor: larger ones find nothing more and take longer."""


@dataclass(frozen=True)
class Value:
    """A float32 tensor of the graph."""

    name: str
    shape: tuple[int, ...]

    @property
    def rank(self) -> int:
        """Number of axes."""
        return len(self.shape)


@dataclass
class Drawing:
    """Nodes, weights and inputs so far, and the random numbers that they are drawn with."""

    rng: np.random.Generator
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    weights: list[TensorProto] = field(default_factory=list)
    inputs: list[onnx.ValueInfoProto] = field(default_factory=list)

    def pick(self, *choices: Any) -> Any:
        """One of `choices`."""
        return choices[int(self.rng.integers(len(choices)))]

    def chance(self, probability: float) -> bool:
        """True with that probability."""
        return bool(self.rng.random() < probability)

    def input(self, *shape: int) -> Value:
        """Add an input of the graph."""
        name = f"x{len(self.inputs)}"
        self.inputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))
        return Value(name, shape)

    def constant(self, array: np.ndarray) -> str:
        """Add an initializer."""
        name = f"w{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(array, name))
        return name

    def weight(self, *shape: int, fan_in: int | None = None) -> str:
        """Add random weights that keep results of a product near 1."""
        scale = 1 / np.sqrt(max(1, fan_in or int(np.prod(shape[1:]))))
        return self.constant((scale * self.rng.standard_normal(shape)).astype("float32"))

    def positive(self, *shape: int) -> str:
        """Add random weights between 0.5 and 1.5, as scales and variances are."""
        return self.constant((0.5 + self.rng.random(shape)).astype("float32"))

    def ints(self, *values: int) -> str:
        """Add a constant that operators take for shapes and axes."""
        return self.constant(np.array(values, "int64"))

    def number(self, value: float) -> str:
        """Add a float32 scalar."""
        return self.constant(np.array(value, "float32"))

    def op(self, op_type: str, *inputs: Value | str, outputs: int = 1, **attributes: Any) -> str:
        """Add a node and return the name of its first result; others end in ``_1``, ``_2``."""
        name = f"t{len(self.nodes)}"
        names = [name, *(f"{name}_{index}" for index in range(1, outputs))]
        reads = [value.name if isinstance(value, Value) else value for value in inputs]
        self.nodes.append(helper.make_node(op_type, reads, names, name=f"n_{name}", **attributes))
        return name

    def value(self, name: str) -> Value:
        """The tensor `name` with the shape that ONNX infers for it."""
        inferred = shape_inference.infer_shapes(
            self.model([name]), strict_mode=True, data_prop=True
        )
        (output,) = inferred.graph.output
        dims = output.type.tensor_type.shape.dim
        return Value(name, tuple(dim.dim_value for dim in dims))

    def model(self, outputs: list[str]) -> onnx.ModelProto:
        """The graph so far, with those results."""
        graph = helper.make_graph(
            self.nodes,
            "fuzzed",
            self.inputs,
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
            self.weights,
        )
        opsets = [helper.make_opsetid("", OPSET)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION)
