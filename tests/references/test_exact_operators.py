"""Results in float64: ONNX Runtime's to its own rounding, for the operators that real networks use."""

from __future__ import annotations

import math

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from layoutsel.references.exact_reference import NotExact, exact_results
from layoutsel.references.onnx_reference import onnxruntime_reference
from layoutsel.runtime.samples import rel_l2_err

RANDOM = np.random.default_rng(0)
X = RANDOM.standard_normal((2, 4, 9, 7)).astype(np.float32)
W = RANDOM.standard_normal((8, 2, 3, 2)).astype(np.float32)
WEIGHTS = {
    "w": W,
    "b": np.arange(8, dtype=np.float32),
    "deep": RANDOM.standard_normal((4, 1, 3, 3)).astype(np.float32),
    "back": RANDOM.standard_normal((4, 3, 3, 2)).astype(np.float32),
    "matrix": RANDOM.standard_normal((7, 5)).astype(np.float32),
    "rows": RANDOM.standard_normal((2, 1, 7, 3)).astype(np.float32),
    **{name: np.full(4, value, np.float32) for name, value in zip("smnv", (2, 1, 3, 4), strict=True)},
}  # fmt: skip
POOL = {"kernel_shape": [3, 2], "strides": [2, 2], "pads": [1, 1, 1, 1]}


def node(kind, *inputs, **attributes):
    return helper.make_node(kind, list(inputs), ["y"], **attributes)


def model_of(nodes, opset=17):
    used = {name for made in nodes for name in made.input}
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, X.shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(value, name) for name, value in WEIGHTS.items() if name in used],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def run(nodes, opset=17):
    (result,) = exact_results(model_of(nodes, opset), {}, {"x": X})
    return result


CONV = {"group": 2, "strides": [2, 1], "dilations": [1, 2], "pads": [2, 1, 1, 0]}
BACK = {"strides": [2, 3], "pads": [1, 0, 1, 0], "output_padding": [1, 2]}
CASES = {
    "conv": (node("Conv", "x", "w", "b", **CONV), 17),
    "conv_same": (node("Conv", "x", "deep", group=4, auto_pad="SAME_LOWER", strides=[2, 2]), 17),
    "conv_transpose": (node("ConvTranspose", "x", "back", **BACK), 17),
    "max_pool": (node("MaxPool", "x", ceil_mode=1, **POOL), 17),
    "average_pool": (node("AveragePool", "x", ceil_mode=1, **POOL), 19),
    "average_pool_padded": (node("AveragePool", "x", count_include_pad=1, **POOL), 17),
    "average_pool_large": (node("AveragePool", "x", kernel_shape=[999] * 2, pads=[499] * 4), 17),
    "softmax": (node("Softmax", "x"), 17),
    "softmax_of_all": (node("Softmax", "x"), 11),
    "log_softmax": (node("LogSoftmax", "x", axis=1), 13),
    "batch_norm": (node("BatchNormalization", "x", *"smnv"), 17),
    "batch_norm_of_old": (node("BatchNormalization", "x", *"smnv", epsilon=1e-3), 9),
    "layer_norm": (node("LayerNormalization", "x", "line"), 17),
    "lrn": (node("LRN", "x", size=5, alpha=0.5), 17),
    "erf": (node("Erf", "x"), 17),
    "gelu": (node("Gelu", "x"), 20),
    "matmul": (node("MatMul", "x", "matrix"), 17),
    "matmul_batched": (node("MatMul", "x", "rows"), 17),
}
WEIGHTS["line"] = np.ones(7, np.float32)


@pytest.mark.parametrize("name", CASES)
def test_results_are_those_of_onnxruntime_and_wide(name):
    made, opset = CASES[name]
    got = run([made], opset)
    assert got.dtype == np.float64
    (wanted,) = onnxruntime_reference(model_of([made], opset), {"x": X})
    assert rel_l2_err(got, wanted) < 1e-6


def test_nothing_is_rounded_on_the_way():
    third = helper.make_tensor("third", TensorProto.FLOAT, [], [1 / 3])
    nodes = [
        helper.make_node("Constant", [], ["third"], value=third),
        helper.make_node("Cast", ["x"], ["wide"], to=TensorProto.DOUBLE),
        helper.make_node("Div", ["wide", "third"], ["over"]),
        helper.make_node("Cast", ["over"], ["single"], to=TensorProto.FLOAT),
        helper.make_node("Erf", ["single"], ["y"]),
    ]
    wanted = np.vectorize(math.erf)(X.astype(np.float64) / float(np.float32(1 / 3)))
    assert rel_l2_err(run(nodes), wanted) < 1e-15


@pytest.mark.parametrize(
    "made",
    [
        node("Cast", "x", to=TensorProto.FLOAT16),
        node("RandomNormalLike", "x", dtype=TensorProto.FLOAT),
    ],
)
def test_an_operator_that_is_not_computed_in_float64_is_refused(made):
    with pytest.raises((NotExact, NotImplementedError)):
        run([made])
