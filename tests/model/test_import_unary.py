"""Every unary operator is imported in each float type that it has, and computes in that type."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

import layoutsel
from tests.reference import relative_error

TYPES = {
    "float16": (TensorProto.FLOAT16, 2e-3),
    "float32": (TensorProto.FLOAT, 3e-6),
    "float64": (TensorProto.DOUBLE, 3e-8),
}
"""ONNX's type, and the error conceded. Defaults of attributes are float32, which limits that of float64."""
ANYWHERE = [
    "Abs",
    "Asinh",
    "Atan",
    "Ceil",
    "Cos",
    "Cosh",
    "Elu",
    "Erf",
    "Exp",
    "Floor",
    "Gelu",
    "HardSigmoid",
    "HardSwish",
    "Hardmax",
    "LeakyRelu",
    "LogSoftmax",
    "Mish",
    "Neg",
    "Reciprocal",
    "Relu",
    "Round",
    "Selu",
    "Shrink",
    "Sigmoid",
    "Sign",
    "Sin",
    "Sinh",
    "Softmax",
    "Softplus",
    "Softsign",
    "Tan",
    "Tanh",
    "ThresholdedRelu",
]
INSIDE = ["Acos", "Asin", "Atanh", "Log", "Sqrt"]
"""Of what is between 0 and 1."""
ABOVE = ("Acosh",)
"""Of what is above 1."""
OTHER_ATTRIBUTES = {
    "Elu": {"alpha": 0.3},
    "HardSigmoid": {"alpha": 0.3, "beta": 0.4},
    "LeakyRelu": {"alpha": 0.2},
    "Selu": {"alpha": 1.2, "gamma": 0.7},
    "Shrink": {"lambd": 0.3, "bias": 0.2},
    "ThresholdedRelu": {"alpha": 0.4},
}


def network(dtype: str) -> onnx.ModelProto:
    """All of them on one input in [-3, 3]: each a result."""
    kind, _ = TYPES[dtype]
    nodes = [
        helper.make_node("Sigmoid", ["x"], ["inside"]),
        helper.make_node("Exp", ["inside"], ["above"]),
    ]
    for source, operators in (("x", ANYWHERE), ("inside", INSIDE), ("above", ABOVE)):
        nodes += [helper.make_node(name, [source], [f"y_{name}"]) for name in operators]
    nodes += [
        helper.make_node(name, ["x"], [f"z_{name}"], **attributes)
        for name, attributes in OTHER_ATTRIBUTES.items()
    ]
    results = [node.output[0] for node in nodes[2:]]
    graph = helper.make_graph(
        nodes,
        "unary",
        [helper.make_tensor_value_info("x", kind, [3, 5])],
        [helper.make_tensor_value_info(name, kind, [3, 5]) for name in results],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 22)], ir_version=10)


@pytest.mark.parametrize("dtype", TYPES)
def test_unary_operators_compute_in_their_own_type(dtype):
    model = network(dtype)
    value = np.random.default_rng(0).uniform(-3, 3, (3, 5)).astype(dtype)
    compiled = layoutsel.optimize(
        model, units=("cpu",), cost="roofline", verify=False, verify_speed=False
    )
    wants = ReferenceEvaluator(network("float64")).run(None, {"x": value.astype("float64")})
    wrong = {}
    for signature, got, want in zip(
        compiled.outputs, compiled.run_all([value]), wants, strict=False
    ):
        assert signature.dtype == dtype
        error = relative_error(np.asarray(got), want)
        if not error <= TYPES[dtype][1]:
            wrong[signature.name] = error
    assert not wrong, sorted(wrong.items())


def test_an_infinite_number_below_the_threshold_is_zero():
    node = helper.make_node("ThresholdedRelu", ["x"], ["y"])
    one = helper.make_tensor_value_info
    graph = helper.make_graph(
        [node], "g", [one("x", TensorProto.FLOAT, [4])], [one("y", TensorProto.FLOAT, [4])]
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 22)], ir_version=10)
    compiled = layoutsel.optimize(
        model, units=("cpu",), cost="roofline", verify=False, verify_speed=False
    )
    value = np.array([-np.inf, np.inf, 0.5, 2.0], "float32")
    np.testing.assert_array_equal(np.asarray(compiled(value)), [0, np.inf, 0, 2])
