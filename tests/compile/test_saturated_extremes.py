"""Extreme inputs saturate: what is left of an output then says nothing of a model."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto, helper, numpy_helper

import layoutsel


def test_a_sigmoid_that_vanishes_on_extreme_inputs_is_verified(tmp_path):
    """A gate whose weights are negative: about 0.4 on usual inputs, 1e-31 and less on large ones."""
    weight = numpy_helper.from_array(np.full((1, 4), -0.002, "float32"), "w")
    nodes = [
        helper.make_node("Abs", ["x"], ["a"]),
        helper.make_node("Gemm", ["a", "w"], ["g"], transB=1),
        helper.make_node("Sigmoid", ["g"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "gate",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 1])],
        [weight],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    cache = tmp_path / "measurements.sqlite"
    made = layoutsel.optimize(model, cost="roofline", verify_speed=False, cache=cache)
    assert all(check["rel_l2_err"] < 1e-5 for check in made.checks)
