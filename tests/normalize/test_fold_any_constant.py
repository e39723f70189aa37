"""Whatever depends on constants alone is folded, whichever the operator; within limits of size and work."""

from __future__ import annotations

import numpy as np
import pytest
from normalizing import batch_norm, check, constant, module_of, operators, scalar, unchanged
from onnx import TensorProto, helper, numpy_helper
from reference import TOLERANCE, relative_error, run_onnx, run_relax
from tvm import relax
from tvm.relax.op import add, mean, nn, reshape

from layoutsel.model import import_model
from tvm_passes.normalize import FoldConstants, run_constants

op = relax.op


@pytest.mark.parametrize(
    "make",
    [
        lambda e: e(op.variance(constant(5, 6), [1])),
        lambda e: e(op.std(constant(5, 6), [1])),
        lambda e: e(op.clip(constant(5, 6), -0.5, 0.25)),
        lambda e: e(op.cumsum(constant(5, 6), 1)),
        lambda e: e(op.cumsum(constant(5, 6), 1, exclusive=True)),
        lambda e: e(op.atan(constant(5, 6))),
        lambda e: e(op.sinh(constant(5, 6))),
        lambda e: e(op.sign(constant(5, 6))),
        lambda e: e(op.trunc(e(op.multiply(constant(5, 6), scalar(3.0))))),
        lambda e: e(op.einsum((constant(3, 4), constant(4, 5)), "ij,jk->ik")),
        lambda e: e(op.triu(constant(5, 5), 1)),
        lambda e: e(op.flip(constant(5, 5), 1)),
        lambda e: e(nn.softmax(constant(5, 5), 1)),
        lambda e: e(nn.conv2d(constant(1, 2, 5, 5), constant(3, 2, 3, 3))),
        lambda e: e(nn.pad(constant(5, 5), [1, 1, 1, 1])),
        lambda e: e(op.image.resize2d(constant(1, 2, 3, 3), (6, 6))),
        lambda e: e(op.argmax(constant(5, 5), 1)),
        lambda e: batch_norm(e, constant(2, 8, 3)),
    ],
)
def test_an_operator_of_constants_is_folded(make):
    def emit(e, x):
        value = make(e)
        return e(add(e(mean(e(op.astype(value, "float32")))), e(mean(x))))

    check(FoldConstants(), emit, "mean add", (2, 2))


def test_statistics_of_a_batch_are_folded():
    data = np.random.default_rng(0).standard_normal((1, 4, 18)).astype("float32") + 3

    def emit(e, x):
        ones, zeros = relax.const(np.ones(4, "float32")), relax.const(np.zeros(4, "float32"))
        normal = e(nn.batch_norm(relax.const(data), ones, zeros, zeros, ones, 1, 1e-5))
        weight = e(reshape(e(relax.TupleGetItem(normal, 0)), (4, 2, 3, 3)))
        return nn.conv2d(x, weight)

    check(FoldConstants(), emit, "nn.conv2d", (1, 2, 5, 5))


def test_a_weight_may_grow():
    def emit(e, x):
        full = e(op.broadcast_to(constant(640, 1, 1, 1), (640, 640, 1, 1)))
        return nn.conv2d(x, e(op.multiply(full, scalar(2.0))))

    check(FoldConstants(), emit, "nn.conv2d", (1, 640, 1, 1))


def test_a_long_chain_of_activations_costs_nothing():
    """Products of activations: nothing of what they depend on is constant."""

    def emit(e, x):
        for _ in range(40):
            x = e(op.matmul(e(add(x, x)), x))
        return add(x, x)

    unchanged(FoldConstants(), emit, (2, 2))


def test_a_part_of_a_large_constant_may_be_a_weight():
    def emit(e, x):
        full = e(op.broadcast_to(constant(640, 1), (640, 1280)))
        return op.matmul(x, e(relax.TupleGetItem(e(op.split(full, 2, 1)), 1)))

    check(FoldConstants(), emit, "matmul", (3, 640))


def test_a_large_constant_that_is_read_twice_is_computed_once():
    def emit(e, x):
        full = e(op.broadcast_to(constant(640, 1), (640, 640)))
        for _ in range(30):
            full = e(op.maximum(full, full))
        return op.matmul(x, full)

    check(FoldConstants(), emit, "matmul", (3, 640))


def test_what_is_no_weight_may_not():
    unchanged(
        FoldConstants(),
        lambda e, x: add(x, e(op.broadcast_to(constant(1024, 1), (1024, 1024)))),
        (1024, 1024),
    )


def test_results_of_several_tensors_are_limited_as_well():
    wide = op.broadcast_to(scalar(1.0), (2, 1 << 20))
    unchanged(
        FoldConstants(),
        lambda e, x: add(e(relax.TupleGetItem(e(op.split(e(wide), 2)), 0)), x),
        (1, 1 << 20),
    )


def test_work_is_limited(monkeypatch):
    monkeypatch.setattr(run_constants, "MOST_STEPS", 1000)

    def emit(e, x):
        return add(x, e(nn.conv2d(constant(1, 2, 9, 9), constant(3, 2, 3, 3))))

    unchanged(FoldConstants(), emit, (1, 3, 7, 7))


def test_integers_that_stand_for_weights_stay():
    weight = relax.const(np.arange(64, dtype="int8").reshape(8, 8, 1, 1))

    def emit(e, x):
        return nn.conv2d(x, e(op.dequantize(weight, scalar(0.1), relax.const(0, "int8"))))

    assert operators(FoldConstants()(module_of(emit))) == {"dequantize": 1, "nn.conv2d": 1}


def node(op_type, inputs, outputs, **attributes):
    return helper.make_node(op_type, inputs, outputs, outputs[0], **attributes)


def test_weight_standardisation_leaves_a_convolution():
    """As exporters write it: a batch normalisation in training mode of the weights, by output channel."""
    rng = np.random.default_rng(0)
    tensors = {
        "weight": rng.standard_normal((32, 64, 3, 3)).astype("float32"),
        "rows": np.array([1, 32, -1]),
        "shape": np.array([32, 64, 3, 3]),
        "gain": np.full(32, 0.1, "float32"),
        "zeros": np.zeros(32, "float32"),
        "ones": np.ones(32, "float32"),
    }
    nodes = [
        node("Reshape", ["weight", "rows"], ["flat"]),
        node(
            "BatchNormalization",
            ["flat", "gain", "zeros", "zeros", "ones"],
            ["normal", "mean", "variance"],
            training_mode=1,
            epsilon=1e-6,
        ),
        node("Reshape", ["normal", "shape"], ["standard"]),
        node("Conv", ["x", "standard"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "standardised",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, (1, 64, 5, 5))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(array, name) for name, array in tensors.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    value = rng.standard_normal((1, 64, 5, 5)).astype("float32")
    module = import_model(model).module
    assert operators(module) == {"nn.conv2d": 1}
    (got,), (want,) = run_relax(module, [value]), run_onnx(model, {"x": value})
    assert relative_error(got, want) <= TOLERANCE


def test_positions_of_a_large_constant_mask_are_evaluated_at_import():
    mask = np.random.default_rng(0).integers(0, 2, (90, 90)).astype(bool)
    graph = helper.make_graph(
        [node("NonZero", ["mask"], ["places"]), node("Gather", ["x", "places"], ["y"], axis=0)],
        "positions",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, (90, 2))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(mask, "mask")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    value = np.random.default_rng(1).standard_normal((90, 2)).astype("float32")
    (got,), (want,) = run_relax(import_model(model).module, [value]), run_onnx(model, {"x": value})
    np.testing.assert_array_equal(got, want)
