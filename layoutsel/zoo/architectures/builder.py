"""Builder of ONNX graphs, operator by operator, that creates random weights on use."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

from layoutsel.zoo.random_weights import HE_GAIN, random_weight

_OPSET = 17
"""Version of ONNX's operators."""
_IR_VERSION = 8
"""Version of ONNX's file format."""


@dataclass(frozen=True)
class TensorRef:
    """Reference to a tensor of the graph."""

    name: str
    """Name of the tensor."""
    channels: int
    """Extent of the axis that the next layer contracts."""


Operand: TypeAlias = "TensorRef | tuple[int, ...] | np.ndarray | float | None"
"""A tensor, the shape of a new weight, a constant, a float32 scalar, or None for an absent optional
input."""


def ints(*values: int) -> np.ndarray:
    """Integer constant, for shapes and axes."""
    return np.array(values, np.int64)


class NetworkBuilder:
    """An ONNX graph under construction; names of new operators begin with :attr:`scope`.

    Parameters
    ----------
    name
        Name of the graph.
    seed
        Seed of the weights.
    """

    def __init__(self, name: str, seed: int = 0) -> None:
        self._name = name
        self.scope = ""
        self._rng = np.random.default_rng(seed)
        self._nodes: list[NodeProto] = []
        self._weights: list[TensorProto] = []
        self._inputs: list[ValueInfoProto] = []
        self._outputs: list[ValueInfoProto] = []

    def input(
        self, name: str, shape: tuple[int, ...], elem_type: int = TensorProto.FLOAT
    ) -> TensorRef:
        """Add an input; its second axis holds the channels."""
        self._inputs.append(helper.make_tensor_value_info(name, elem_type, shape))
        return TensorRef(name, shape[1])

    def output(self, value: TensorRef, shape: tuple[int, ...]) -> None:
        """Add `value` to the outputs, with its shape."""
        self._outputs.append(helper.make_tensor_value_info(value.name, TensorProto.FLOAT, shape))

    def op(
        self,
        op_type: str,
        *operands: Operand,
        channels: int | None = None,
        gain: float = HE_GAIN,
        **attributes: Any,
    ) -> TensorRef:
        """Add an operator and return its result.

        Parameters
        ----------
        op_type
            Name of the ONNX operator.
        *operands
            Inputs of the operator.
        channels
            Channels of the result; those of the first tensor among the inputs if None.
        gain
            Gain of a new matrix; see :func:`layoutsel.zoo.random_weights.random_weight`.
        **attributes
            Attributes of the operator.
        """
        name = f"{self.scope}{op_type}_{len(self._nodes)}"
        inputs = [
            self._operand(name, op_type, position, operand, gain)
            for position, operand in enumerate(operands)
        ]
        self._nodes.append(helper.make_node(op_type, inputs, [f"{name}_out"], name, **attributes))
        if channels is None:
            channels = next(value.channels for value in operands if isinstance(value, TensorRef))
        return TensorRef(f"{name}_out", channels)

    def model(self) -> ModelProto:
        """Make the ONNX model."""
        graph = helper.make_graph(self._nodes, self._name, self._inputs, self._outputs)
        opsets = [helper.make_opsetid("", _OPSET)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=_IR_VERSION)
        model.graph.initializer.extend(self._weights)  # ONNX's helpers would copy the weights
        return model

    def _operand(
        self, node: str, op_type: str, position: int, operand: Operand, gain: float
    ) -> str:
        """Name of an operand's tensor; new weights and constants become initializers."""
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
