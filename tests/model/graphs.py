"""Small ONNX models for tests of what the import refuses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from onnx import ModelProto, TensorProto, helper, numpy_helper

FLOAT, INT64 = TensorProto.FLOAT, TensorProto.INT64


class Input:
    """An input of the model."""

    def __init__(self, *shape: int, elem: int = FLOAT) -> None:
        self.shape = shape
        self.elem = elem


Operand = Input | np.ndarray | str
"""An input of the model, a weight, or the name of another value ("" for one that is left out)."""


def ints(*values: int) -> np.ndarray:
    """A constant of 64-bit integers."""
    return np.asarray(values, "int64")


def scales(*values):
    """Weights of float32."""
    return np.asarray(values, "float32")


def ones(*shape: int) -> np.ndarray:
    """A weight of ones."""
    return np.ones(shape, "float32")


def single(
    op: str,
    operands: Sequence[Operand],
    attributes: Mapping[str, Any] | None = None,
    *,
    opset: int = 18,
    outputs: int = 1,
    elem: int = 0,
    extra: Sequence[Any] = (),
    domain: str = "",
) -> ModelProto:
    """A model of one node named ``node``, and of `extra` nodes before it; outputs are ``y0``, ``y1``, ..."""
    inputs, weights, names = [], [], []
    for index, operand in enumerate(operands):
        name = operand if isinstance(operand, str) else f"i{index}"
        names.append(name)
        if isinstance(operand, Input):
            inputs.append(helper.make_tensor_value_info(name, operand.elem, operand.shape))
        elif isinstance(operand, np.ndarray):
            weights.append(numpy_helper.from_array(operand, name))
    results = [f"y{index}" for index in range(outputs)]
    node = helper.make_node(op, names, results, name="node", domain=domain, **(attributes or {}))
    declared = [helper.make_tensor_value_info(name, elem, None) for name in results]
    graph = helper.make_graph([*extra, node], "single", inputs, declared, weights)
    opsets = [helper.make_opsetid("", opset)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def nested_functions(levels: int, calls: int) -> ModelProto:
    """A model of ``calls ** levels`` nodes, by functions that each call the next one `calls` times."""
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("local", 1)]
    functions = []
    for level in range(levels):
        last = level == levels - 1
        op, domain = ("Relu", "") if last else (f"f{level + 1}", "local")
        values = ["a", *(f"t{index}" for index in range(calls - 1)), "b"]
        body = [
            helper.make_node(op, [before], [after], domain=domain)
            for before, after in pairwise(values)
        ]
        functions.append(helper.make_function("local", f"f{level}", ["a"], ["b"], body, opsets))
    call = helper.make_node("f0", ["x"], ["y"], name="call", domain="local")
    graph = helper.make_graph(
        [call],
        "nested",
        [helper.make_tensor_value_info("x", FLOAT, [2])],
        [helper.make_tensor_value_info("y", FLOAT, None)],
    )
    return helper.make_model(graph, opset_imports=opsets, ir_version=8, functions=functions)
