"""Writes an ONNX graph operator by operator; weights are made where they are read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

from layoutsel.zoo.random_weights import HE_GAIN, random_weight

_OPSET = 17
_IR_VERSION = 8


@dataclass(frozen=True)
class TensorRef:
    """A tensor of the graph."""

    name: str
    channels: int
    """Extent of the axis along which the next layer contracts."""


Operand: TypeAlias = "TensorRef | tuple[int, ...] | np.ndarray | float | None"
"""A tensor; the shape of a weight to make; a constant; a float32 scalar; nothing, where an input is optional."""


def ints(*values: int) -> np.ndarray:
    """Constant that operators take for shapes and axes."""
    return np.array(values, np.int64)


class NetworkBuilder:
    """A graph under construction."""

    def __init__(self, name: str, seed: int = 0) -> None:
        self._name = name
        self._rng = np.random.default_rng(seed)
        self._nodes: list[NodeProto] = []
        self._weights: list[TensorProto] = []
        self._inputs: list[ValueInfoProto] = []
        self._outputs: list[ValueInfoProto] = []

    def input(
        self, name: str, shape: tuple[int, ...], elem_type: int = TensorProto.FLOAT
    ) -> TensorRef:
        """Add an input, whose second axis holds the channels."""
        self._inputs.append(helper.make_tensor_value_info(name, elem_type, shape))
        return TensorRef(name, shape[1])

    def output(self, value: TensorRef, shape: tuple[int, ...]) -> None:
        """Declare `value` a result."""
        self._outputs.append(helper.make_tensor_value_info(value.name, TensorProto.FLOAT, shape))

    def op(
        self,
        op_type: str,
        *operands: Operand,
        channels: int | None = None,
        gain: float = HE_GAIN,
        **attributes: Any,
    ) -> TensorRef:
        """Add an operator.

        Parameters
        ----------
        op_type
            Of ONNX.
        operands
            Its inputs.
        channels
            Of the result; those of the first tensor among the inputs if None.
        gain
            Of a matrix to make: of :func:`layoutsel.zoo.random_weights.random_weight`.
        attributes
            Its attributes.
        """
        name = f"{op_type}_{len(self._nodes)}"
        inputs = [
            self._operand(name, op_type, position, operand, gain)
            for position, operand in enumerate(operands)
        ]
        self._nodes.append(helper.make_node(op_type, inputs, [f"{name}_out"], name, **attributes))
        if channels is None:
            channels = next(value.channels for value in operands if isinstance(value, TensorRef))
        return TensorRef(f"{name}_out", channels)

    def model(self) -> ModelProto:
        """Finish the graph."""
        graph = helper.make_graph(self._nodes, self._name, self._inputs, self._outputs)
        opsets = [helper.make_opsetid("", _OPSET)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=_IR_VERSION)
        model.graph.initializer.extend(self._weights)  # each of ONNX's helpers would copy them
        return model

    def _operand(
        self, node: str, op_type: str, position: int, operand: Operand, gain: float
    ) -> str:
        """Name of the tensor that an input reads."""
        if operand is None:
            return ""
        if isinstance(operand, TensorRef):
            return operand.name
        if isinstance(operand, tuple):
            array = random_weight(self._rng, op_type, position, operand, gain)
        elif isinstance(operand, float):
            array = np.array(operand, np.float32)
        else:
            array = operand
        self._weights.append(numpy_helper.from_array(array, f"{node}_{position}"))
        return f"{node}_{position}"
