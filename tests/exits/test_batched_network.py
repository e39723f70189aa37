"""Models for several samples: equal results row by row, and networks that are declined."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest
from exit_models import images, network
from exit_networks import NETWORKS
from onnx import TensorProto, helper, numpy_helper

from layoutsel.errors import NoBatches
from layoutsel.exits.batched_network import with_batch


def session(model) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


@pytest.mark.parametrize("score", ["max_prob", "margin", "entropy"])
@pytest.mark.parametrize("name", NETWORKS)
def test_rows_have_the_results_of_single_samples(name, score):
    model = network(name).scored(score)
    inputs = images(name, 3)
    together = session(with_batch(model, 3)).run(None, {"x": np.concatenate(inputs)})
    single = session(model)
    alone = [single.run(None, {"x": x}) for x in inputs]
    for number, found in enumerate(together):
        wanted = np.concatenate([results[number] for results in alone])
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-6)


def model_of(*nodes, constants=None, shape=(1, 4), result=(1, 4)):
    """Model of a chain of nodes from ``x`` to ``y``."""
    weights = [numpy_helper.from_array(np.array(v), n) for n, v in (constants or {}).items()]
    x, y = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, one)
        for name, one in (("x", shape), ("y", result))
    )
    graph = helper.make_graph(list(nodes), "net", [x], [y], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def node(operator, *inputs, output="y", **attributes):
    return helper.make_node(operator, inputs, [output], name=f"{operator}_node", **attributes)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (
            model_of(
                node("Transpose", "x", output="t", perm=[1, 0]),
                node("Transpose", "t", perm=[1, 0]),
            ),
            r"tensor 't', of node 'Transpose_node' \(Transpose\): got the shape \(4, 1\) for one",
        ),
        (
            model_of(node("ReduceMean", "x", "axes"), constants={"axes": [0]}),
            r"tensor 'y', .*got the shape \(1, 4\) for 2 samples; expected \(2, 4\)",
        ),
        (
            model_of(
                node("Flatten", "x", output="t", axis=0),
                node("Reshape", "t", "shape"),
                constants={"shape": [1, 4]},
            ),
            r"tensor 't', .*got the shape \(1, 8\) for 2 samples; expected \(2, 4\)",
        ),
        (
            model_of(node("Gemm", "x", "x", transB=1), shape=(1, 1), result=(1, 1)),
            r"tensor 'y', .*got the shape \(2, 2\) for 2 samples; expected \(2, 1\)",
        ),
        (
            model_of(node("Reshape", "x", "shape"), constants={"shape": [2, 2]}, result=(2, 2)),
            r"tensor 'y', input or output: got the shape \(2, 2\) for one sample",
        ),
    ],
)
def test_tensors_without_rows_are_declined(model, message):
    with pytest.raises(NoBatches, match=message):
        with_batch(model, 2)


def test_shapes_from_the_graph_follow_the_batch():
    """A reshape to (Shape(x)[0], -1), as exporters write it."""
    model = model_of(
        node("Shape", "x", output="s", end=1),
        node("Concat", "s", "rest", output="t", axis=0),
        node("Reshape", "x", "t"),
        constants={"rest": [-1]},
        shape=(1, 2, 2),
    )
    x = np.arange(12, dtype="float32").reshape(3, 2, 2)
    (found,) = session(with_batch(model, 3)).run(None, {"x": x})
    np.testing.assert_array_equal(found, x.reshape(3, 4))


def test_the_given_model_stays_as_it_is():
    model = network("chain").scored()
    before = model.SerializeToString()
    with_batch(model, 4)
    assert model.SerializeToString() == before
