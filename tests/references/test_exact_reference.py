"""Where ONNX Runtime itself is inexact, its distance from float64 is what a result may be off by."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

import layoutsel
from tests.reference import relative_error


def far_rows() -> onnx.ModelProto:
    """A layer normalisation of rows around 4000, by whose squares ONNX Runtime takes the variance."""
    constants = {
        "far": np.float32(4000),
        "one": np.ones(96, "float32"),
        "zero": np.zeros(96, "float32"),
    }
    graph = helper.make_graph(
        [
            helper.make_node("Add", ["x", "far"], ["s"]),
            helper.make_node("LayerNormalization", ["s", "one", "zero"], ["y"], axis=-1),
        ],
        "far",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [8, 96])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [8, 96])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def test_a_result_that_is_more_exact_than_the_reference_is_accepted(tmp_path):
    compiled = layoutsel.optimize(
        far_rows(),
        units=["cpu"],
        cost="roofline",
        verify_speed=False,
        cache=tmp_path / "cache.sqlite",
    )
    value = np.random.default_rng(0).standard_normal((8, 96)).astype("float32")
    far = (value + np.float32(4000)).astype("float64")
    away = far - far.mean(axis=-1, keepdims=True)
    want = away / np.sqrt((away**2).mean(axis=-1, keepdims=True) + 1e-5)
    assert relative_error(np.asarray(compiled(value)), want) < 1e-6
