"""Times by family of operators: every engine's kernels are found, and fall into the right family."""

from __future__ import annotations

import argparse

import numpy as np
import onnx
import pytest
from families import profiled, rows, show
from onnx import TensorProto, helper, numpy_helper
from time_by_family.families import (
    ATTENTION,
    CONVOLUTION,
    FAMILIES,
    GROUPED,
    LAYOUT,
    NORMALISATION,
    PRODUCT,
    SOFTMAX,
    onnxruntime_family,
    openvino_family,
)

TOKENS, DEPTH = 64, 32


def weight(name, *shape):
    values = np.random.default_rng(len(name)).standard_normal(shape).astype("float32") / 8
    return numpy_helper.from_array(values, name)


@pytest.fixture
def model(tmp_path):
    """Convolution, depthwise convolution, attention of its pixels, a product."""
    weights = [weight("c", DEPTH, 3, 3, 3), weight("d", DEPTH, 1, 3, 3), weight("p", DEPTH, 96)]
    shape = numpy_helper.from_array(np.array([1, DEPTH, TOKENS]), "shape")
    nodes = [
        helper.make_node("Conv", ["x", "c"], ["a"], "conv", pads=[1] * 4),
        helper.make_node("Conv", ["a", "d"], ["b"], "depthwise", pads=[1] * 4, group=DEPTH),
        helper.make_node("Reshape", ["b", "shape"], ["k"], "keys"),
        helper.make_node("Transpose", ["k"], ["q"], "queries", perm=[0, 2, 1]),
        helper.make_node("MatMul", ["q", "k"], ["s"], "scores"),
        helper.make_node("Softmax", ["s"], ["w"], "weights", axis=-1),
        helper.make_node("MatMul", ["w", "q"], ["v"], "values"),
        helper.make_node("MatMul", ["v", "p"], ["y"], "product"),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, TOKENS, 96])],
        [*weights, shape],
    )
    path = tmp_path / "model.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), path)
    return path


def test_kernels_of_every_engine_have_their_families(model, tmp_path, capsys):
    pytest.importorskip("openvino")
    folder = tmp_path / "work"
    folder.mkdir()
    found = profiled(str(model), argparse.Namespace(threads=2, quick=True), folder)
    for engine, nodes in found["nodes"].items():
        families = {node.family for node in nodes}
        assert {CONVOLUTION, GROUPED} <= families, engine
        assert families <= set(FAMILIES), engine
        assert all(node.us >= 0 for node in nodes)
    assert {PRODUCT, ATTENTION} <= {node.family for node in found["nodes"]["layoutsel"]}
    assert {PRODUCT, ATTENTION, SOFTMAX} <= {node.family for node in found["nodes"]["onnxruntime"]}
    assert found["ceiling"][CONVOLUTION] > 0
    assert found["ceiling"][LAYOUT] == 0
    made = list(rows(str(model), found))
    assert made[-1]["family"] == "whole network"
    assert made[-1]["ceiling_us"] == pytest.approx(
        sum(row["ceiling_us"] for row in made[:-1]), abs=1
    )
    show(made)
    assert "whole network" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("operator", "groups", "constant", "family"),
    [
        ("MatMul", 1, True, PRODUCT),
        ("FusedMatMul", 1, False, ATTENTION),
        ("FusedConv", 1, True, CONVOLUTION),
        ("Conv", 8, True, GROUPED),
        ("SkipLayerNormalization", 1, True, NORMALISATION),
        ("ReorderOutput", 1, False, LAYOUT),
    ],
)
def test_families_of_onnxruntime(operator, groups, constant, family):
    assert onnxruntime_family(operator, groups=groups, has_constant_matrix=constant) == family


def test_families_of_openvino():
    assert openvino_family("FullyConnected") == PRODUCT
    assert openvino_family("Unheard") == "other"
