"""Every operator agrees with TVM's own code, in every layout that it takes."""

from __future__ import annotations

import numpy as np
import pytest
from networks import arrays, functions, network, run_onednn, run_reference, weight
from tvm import relax
from tvm.relax import op

from tvm_passes.decision import Decision
from tvm_passes.onednn import available, supports
from tvm_passes.partition import PartitionSubgraphs
from tvm_passes.strides import reshaped_strides

pytestmark = pytest.mark.skipif(available() is not None, reason=str(available()))


def number(value):
    """A constant of rank 0."""
    return relax.const(value, "float32")


IMAGE = (1, 32, 9, 11)
LAYOUTS = ("NCHW", "NHWC", "NCHW8c", "NCHW16c")

CONVOLUTIONS = {
    "1x1": lambda x: op.nn.conv2d(x, weight(16, 32, 1, 1)),
    "3x3": lambda x: op.nn.conv2d(x, weight(48, 32, 3, 3), padding=1),
    "strided": lambda x: op.nn.conv2d(x, weight(16, 32, 3, 3), strides=2, padding=1),
    "dilated": lambda x: op.nn.conv2d(x, weight(16, 32, 3, 3), dilation=2, padding=2),
    "asymmetric": lambda x: op.nn.conv2d(x, weight(16, 32, 3, 2), padding=[0, 1, 2, 0]),
    "grouped": lambda x: op.nn.conv2d(x, weight(32, 16, 3, 3), padding=1, groups=2),
    "depthwise": lambda x: op.nn.conv2d(x, weight(32, 1, 3, 3), padding=1, groups=32),
    "odd-channels": lambda x: op.nn.conv2d(x, weight(30, 32, 3, 3), padding=1),
    "transposed": lambda x: op.nn.conv2d_transpose(
        x, weight(32, 16, 3, 3), strides=2, padding=1, output_padding=1
    ),
}

IMAGE_OPERATORS = {
    "max_pool": lambda x: op.nn.max_pool2d(x, [3, 3], [2, 2], [1, 1, 1, 1]),
    "max_pool_ceil": lambda x: op.nn.max_pool2d(x, [2, 2], [2, 2], ceil_mode=True),
    "avg_pool": lambda x: op.nn.avg_pool2d(x, [3, 3], [2, 2], [1, 1, 1, 1]),
    "avg_pool_include": lambda x: op.nn.avg_pool2d(
        x, [3, 3], [2, 2], [1, 1, 1, 1], count_include_pad=True
    ),
    "global_pool": lambda x: op.nn.adaptive_avg_pool2d(x, [1, 1]),
    "mean": lambda x: op.mean(x, [2, 3]),
    "mean_keepdims": lambda x: op.mean(x, [2, 3], keepdims=True),
    "relu": op.nn.relu,
    "add_channels": lambda x: op.add(x, weight(1, 32, 1, 1)),
    "multiply_self": lambda x: op.multiply(x, x),
    "concat": lambda x: op.concat([op.nn.relu(x), x], axis=1),
    "softmax": lambda x: op.nn.softmax(x, axis=1),
    "resize_linear": lambda x: op.image.resize2d(x, (18, 22), layout="NCHW", method="linear"),
    "resize_nearest": lambda x: op.image.resize2d(
        x,
        (18, 33),
        layout="NCHW",
        method="nearest_neighbor",
        coordinate_transformation_mode="asymmetric",
        rounding_method="floor",
    ),
    "flatten": lambda x: op.reshape(x, (1, 32 * 9 * 11)),
    "permute": lambda x: op.permute_dims(x, [0, 2, 3, 1]),
    "shuffle": lambda x: op.reshape(
        op.permute_dims(op.reshape(x, (1, 4, 8, 9, 11)), [0, 2, 1, 3, 4]), IMAGE
    ),
    "slice": lambda x: op.strided_slice(x, [1, 2], [16, 1], [32, 9], [1, 2]),
    "take": lambda x: op.take(x, relax.const(3, "int64"), axis=1),
    "take of one row": lambda x: op.take(x, relax.const([8], "int64"), axis=2),
}

ELEMENTWISE = {
    "abs": op.abs,
    "clip": lambda x: op.clip(x, -0.5, 0.75),
    "divide": lambda x: op.divide(x, number(3.0)),
    "divided": lambda x: op.divide(number(3.0), x),
    "exp": op.exp,
    "gelu": op.nn.gelu,
    "gelu_tanh": op.nn.gelu_tanh,
    "leakyrelu": lambda x: op.nn.leakyrelu(x, 0.1),
    "log": lambda x: op.log(op.abs(x)),
    "negative": op.negative,
    "power": lambda x: op.power(op.abs(x), number(0.5)),
    "maximum": lambda x: op.maximum(number(0.25), x),
    "subtracted": lambda x: op.subtract(number(2.0), x),
    "rsqrt": lambda x: op.rsqrt(op.abs(x)),
    "sigmoid": op.sigmoid,
    "silu": op.nn.silu,
    "sqrt": lambda x: op.sqrt(op.abs(x)),
    "tanh": op.tanh,
}

OTHER = {
    "conv1d": (lambda x: op.nn.conv1d(x, weight(8, 6, 3), padding=1), [(2, 6, 15)]),
    "conv3d": (lambda x: op.nn.conv3d(x, weight(8, 4, 3, 3, 3), padding=1), [(1, 4, 5, 6, 7)]),
    "pool1d": (lambda x: op.nn.max_pool1d(x, [3], [2]), [(1, 4, 11)]),
    "pool3d": (lambda x: op.nn.avg_pool3d(x, [2, 2, 2], [2, 2, 2]), [(1, 4, 6, 6, 6)]),
    "fully_connected": (lambda x: op.matmul(x, weight(40, 30)), [(1, 40)]),
    "fully_connected_batch": (lambda x: op.matmul(x, weight(40, 30)), [(5, 40)]),
    "matmul_3d": (lambda x: op.matmul(x, weight(40, 30)), [(2, 5, 40)]),
    "matmul_activations": (op.matmul, [(2, 5, 4), (2, 4, 6)]),
    "matmul_broadcast": (op.matmul, [(2, 3, 5, 4), (1, 3, 4, 6)]),
    "matmul_transposed": (
        lambda x, y: op.matmul(x, op.permute_dims(y, [0, 2, 1])),
        [(2, 5, 4), (2, 6, 4)],
    ),
    "log_softmax": (lambda x: op.nn.log_softmax(x, axis=-1), [(3, 10)]),
    "sum": (lambda x: op.sum(x, [1]), [(3, 10, 4)]),
    "max": (lambda x: op.max(x, [2], keepdims=True), [(3, 10, 4)]),
    "subtract": (op.subtract, [(3, 10), (3, 10)]),
    "broadcast_left": (op.add, [(1, 10), (3, 10)]),
    "squeeze": (lambda x: op.squeeze(x, [1]), [(3, 1, 4)]),
    "expand_dims": (lambda x: op.expand_dims(op.nn.relu(x), [1]), [(3, 4)]),
    "split": (lambda x: op.split(op.nn.relu(x), 2, axis=1), [(1, 32, 4, 4)]),
    "permute_3d": (lambda x: op.permute_dims(x, [0, 2, 1]), [(2, 3, 5)]),
    "concat_rows": (lambda x, y: op.concat([x, y], axis=0), [(2, 5), (3, 5)]),
    "concat_repeated": (lambda x: op.concat([x, x, x], axis=1), [(1, 32, 3, 3)]),
}


def check(body, shapes, layout="NCHW", tolerance=2e-5):
    module = network(body, *shapes)
    inputs = arrays(*shapes)
    expected = run_reference(module, inputs)
    results = run_onednn(module, inputs, Decision(unit="onednn", layout=layout))
    for result, reference in zip(results, expected, strict=True):
        assert result.shape == reference.shape
        np.testing.assert_allclose(result, reference, rtol=tolerance, atol=tolerance)


def skip_reference(module, layout):
    """Skip where oneDNN has only a reference implementation, which depends on the processor."""
    decision = Decision(unit="onednn", layout=layout)
    for function in functions(PartitionSubgraphs()(module)).values():
        decline = supports(function, decision)
        if decline is not None:
            assert decline.got.startswith("implementation ref")
            pytest.skip(str(decline))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_convolution(name, layout):
    if layout in ("NCHW8c", "NCHW16c"):
        skip_reference(network(CONVOLUTIONS[name], IMAGE), layout)
    check(CONVOLUTIONS[name], [IMAGE], layout)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", IMAGE_OPERATORS)
def test_image_operator(name, layout):
    if layout in ("NCHW8c", "NCHW16c"):
        skip_reference(network(IMAGE_OPERATORS[name], IMAGE), layout)
    check(IMAGE_OPERATORS[name], [IMAGE], layout)


@pytest.mark.parametrize("name", ELEMENTWISE)
def test_elementwise(name):
    check(ELEMENTWISE[name], [(2, 24)], tolerance=1e-4)


@pytest.mark.parametrize("name", OTHER)
def test_other(name):
    body, shapes = OTHER[name]
    check(body, shapes)


SHAPES = [(4, 6), (2, 2, 6), (24,), (2, 12), (4, 1, 6), (8, 3), (1, 4, 2, 3), (2, 3, 4)]


@pytest.mark.parametrize("target", SHAPES)
@pytest.mark.parametrize("order", [(0, 1, 2), (1, 0, 2), (2, 1, 0), (0, 2, 1)])
def test_reshaped_strides_agree_with_numpy(order, target):
    array = np.arange(24).reshape(2, 3, 4).transpose(order)
    strides = tuple(stride // array.itemsize for stride in array.strides)
    found = reshaped_strides(array.shape, strides, target)
    flat = np.arange(24)
    if found is None:
        assert not np.shares_memory(array.reshape(target), array)
        return
    view = np.lib.stride_tricks.as_strided(flat, target, [s * flat.itemsize for s in found])
    np.testing.assert_array_equal(view, array.reshape(target))
