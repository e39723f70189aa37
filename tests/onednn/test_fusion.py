"""What follows an anchor becomes part of its primitive; copies disappear; results stay the same."""

from __future__ import annotations

import json

import numpy as np
import pytest
from networks import arrays, merged, network, run_onednn, run_reference, weight
from tvm import relax
from tvm.relax import op

from layoutsel.units.layouts import packed_layout
from tvm_passes.decision import Decision
from tvm_passes.onednn import available
from tvm_passes.onednn.lower import emit_partition

pytestmark = pytest.mark.skipif(available() is not None, reason=str(available()))

IMAGE = (1, 32, 8, 8)


def convolution(x, channels=32, seed=7):
    return op.nn.conv2d(x, weight(channels, 32, 3, 3, seed=seed), padding=1)


def with_bias(x):
    return op.add(convolution(x), weight(1, 32, 1, 1))


def number(value):
    return relax.const(value, "float32")


def silu(x):
    value = convolution(x)
    return op.multiply(value, op.sigmoid(value))


def hardswish(x):
    value = convolution(x)
    gate = op.clip(op.add(op.multiply(value, number(1 / 6)), number(0.5)), 0.0, 1.0)
    return op.multiply(value, gate)


def gelu(x):
    value = convolution(x)
    erf = op.erf(op.divide(value, number(2**0.5)))
    return op.multiply(op.multiply(value, op.add(erf, number(1.0))), number(0.5))


ONE_PRIMITIVE = {
    "bias": with_bias,
    "bias_relu": lambda x: op.nn.relu(with_bias(x)),
    "relu6": lambda x: op.clip(with_bias(x), 0.0, 6.0),
    "scale_shift": lambda x: op.add(
        op.multiply(convolution(x), weight(1, 32, 1, 1)), weight(1, 32, 1, 1, seed=8)
    ),
    "silu": silu,
    "hardswish": hardswish,
    "gelu": gelu,
    "residual_relu": lambda x: op.nn.relu(op.add(with_bias(x), x)),
}


def primitives(module, layout):
    graph = emit_partition("p0", merged(module, Decision(unit="onednn", layout=layout))["p0"])
    return [node["op"] for node in json.loads(graph.to_json())["nodes"]], graph


def check(module, *shapes, layout="NHWC"):
    inputs = arrays(*shapes)
    decision = Decision(unit="onednn", layout=layout)
    results = run_onednn(module, inputs, decision)
    for result, expected in zip(results, run_reference(module, inputs), strict=True):
        np.testing.assert_allclose(result, expected, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("layout", ["NHWC", "NCHW"])
@pytest.mark.parametrize("name", ONE_PRIMITIVE)
def test_one_primitive(name, layout):
    if name == "residual_relu" and layout == "NCHW":
        pytest.skip("oneDNN's NCHW convolution reads no residual")
    module = network(ONE_PRIMITIVE[name], IMAGE)
    operators, _ = primitives(module, layout)
    assert [operator for operator in operators if operator != "reorder"] == ["convolution"]
    check(module, IMAGE, layout=layout)


def test_fully_connected_takes_bias_and_activation():
    module = network(
        lambda x: op.nn.relu(op.add(op.matmul(x, weight(40, 24)), weight(24))), (2, 3, 40)
    )
    assert primitives(module, "NCHW")[0] == ["matmul"]
    check(module, (2, 3, 40), layout="NCHW")


def test_fully_connected_takes_residual():
    module = network(lambda x, y: op.add(op.matmul(x, weight(40, 24)), y), (2, 3, 40), (2, 3, 24))
    assert primitives(module, "NCHW")[0] == ["matmul"]
    check(module, (2, 3, 40), (2, 3, 24), layout="NCHW")


def residual_block(x):
    x = op.nn.relu(x)
    shortcut = op.nn.max_pool2d(x, [3, 3], [1, 1], [1, 1])
    return op.nn.relu(op.add(shortcut, convolution(x)))


def test_dead_residual_is_summed_in_place():
    module = network(residual_block, IMAGE)
    _, graph = primitives(module, "NHWC")
    (convolved,) = [node for node in graph.nodes if node.op == "convolution"]
    assert [post_op.kind for post_op in convolved.post_ops] == ["sum", "eltwise"]
    check(module, IMAGE)


def test_live_residual_is_read_beside():
    def body(x):
        shortcut = op.nn.max_pool2d(x, [3, 3], [1, 1], [1, 1])
        joined = op.add(convolution(shortcut), shortcut)
        return op.nn.max_pool2d(op.add(convolution(joined, seed=9), shortcut), [2, 2], [2, 2])

    module = network(body, IMAGE)
    _, graph = primitives(module, "NHWC")
    first, second = [node for node in graph.nodes if node.op == "convolution"]
    assert [post_op.kind for post_op in first.post_ops] == ["binary"]
    assert [post_op.kind for post_op in second.post_ops] == ["sum"]
    check(module, IMAGE)


READ_TWICE = {
    "y + r + r": lambda y, r: op.add(op.add(y, r), r),
    "(y + r) * r": lambda y, r: op.multiply(op.add(y, r), r),
    "y * r + r": lambda y, r: op.add(op.multiply(y, r), r),
    "relu(y + r) * r": lambda y, r: op.multiply(op.nn.relu(op.add(y, r)), r),
}


@pytest.mark.parametrize("layout", ["NCHW", "NHWC", packed_layout()])
@pytest.mark.parametrize("name", READ_TWICE)
def test_a_residual_that_is_read_twice_is_not_overwritten(name, layout):
    def body(x):
        residual = op.nn.relu(op.nn.conv2d(x, weight(32, 32, 1, 1)))
        pooled = op.nn.max_pool2d(x, [3, 3], [1, 1], [1, 1])
        return READ_TWICE[name](op.nn.conv2d(pooled, weight(32, 32, 1, 1, seed=8)), residual)

    check(network(body, IMAGE), IMAGE, layout=layout)


def dense_block(x):
    for _ in range(3):
        x = op.concat([x, op.nn.relu(op.nn.max_pool2d(x, [3, 3], [1, 1], [1, 1]))], axis=1)
    return op.nn.relu(op.nn.max_pool2d(x, [2, 2], [2, 2]))


@pytest.mark.parametrize("layout", ["NCHW", packed_layout()])
def test_nested_concat_needs_no_copy_but_of_the_input(layout):
    module = network(dense_block, IMAGE)
    operators, _ = primitives(module, layout)
    assert "concat" not in operators
    check(module, IMAGE, layout=layout)


def test_concat_of_shared_parts():
    def body(x):
        first, second = op.nn.relu(x), convolution(x)
        joined = op.concat([first, second], axis=1)
        again = op.concat([second, first, second], axis=1)
        return relax.Tuple([op.nn.relu(joined), op.nn.relu(again), second])

    check(network(body, IMAGE), IMAGE, layout="NCHW")


def local_response(x):
    squares = op.expand_dims(op.multiply(x, x), [1])
    mean = op.nn.avg_pool3d(squares, [5, 1, 1], padding=[2, 0, 0, 2, 0, 0], count_include_pad=True)
    scaled = op.multiply(op.squeeze(mean, [1]), number(0.1))
    return op.divide(x, op.power(op.add(scaled, number(2.0)), number(0.75)))


@pytest.mark.parametrize("layout", ["NCHW", "NHWC", packed_layout()])
def test_local_response_normalisation_is_one_primitive(layout):
    module = network(local_response, IMAGE)
    operators, _ = primitives(module, layout)
    assert [operator for operator in operators if operator != "reorder"] == ["lrn"]
    check(module, IMAGE, layout=layout)
