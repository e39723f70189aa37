"""Convolutions and matrix products on tiles against stock TVM: geometries, blocks, epilogues, storages."""

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from tiers import examples
from tvm import relax

from tests.amx.support import TOLERANCES, answers, error, needs_amx, run
from tests.cpu.support import model, random_array, shuffled, weights
from tvm_passes import amx
from tvm_passes.algorithms import algorithms_of
from tvm_passes.decision import Decision
from tvm_passes.partition import PartitionSubgraphs
from tvm_passes.rewrite_layouts import subgraph_id

nn, op = relax.op.nn, relax.op
pytestmark = needs_amx

# input, output channels, kernel, strides, padding (top, left, bottom, right), dilation
CASES = {
    "pointwise": ((1, 64, 7, 7), 96, (1, 1), (1, 1), (0, 0, 0, 0), (1, 1)),
    "pointwise, several images": ((3, 64, 5, 6), 32, (1, 1), (1, 1), (0, 0, 0, 0), (1, 1)),
    "pointwise strided": ((1, 64, 9, 8), 32, (1, 1), (2, 2), (0, 0, 0, 0), (1, 1)),
    "pointwise padded": ((1, 32, 5, 5), 32, (1, 1), (1, 1), (1, 1, 1, 1), (1, 1)),
    "one pixel": ((1, 64, 1, 1), 32, (1, 1), (1, 1), (0, 0, 0, 0), (1, 1)),
    "3x3": ((1, 32, 14, 14), 64, (3, 3), (1, 1), (1, 1, 1, 1), (1, 1)),
    "3x3 strided": ((2, 64, 14, 13), 32, (3, 3), (2, 2), (1, 1, 1, 1), (1, 1)),
    "3x3 unpadded": ((1, 32, 9, 9), 32, (3, 3), (1, 1), (0, 0, 0, 0), (1, 1)),
    "asymmetric": ((2, 32, 9, 11), 32, (3, 5), (1, 1), (1, 2, 0, 1), (1, 1)),
    "dilated": ((1, 32, 9, 11), 32, (3, 3), (2, 1), (2, 2, 2, 2), (2, 2)),
    "padding beyond the kernel": ((1, 32, 4, 4), 32, (2, 2), (1, 1), (3, 3, 3, 3), (1, 1)),
    "deep": ((1, 512, 7, 7), 64, (3, 3), (1, 1), (1, 1, 1, 1), (1, 1)),
}
RAGGED = {
    "stem": ((1, 3, 30, 31), 32, (7, 7), (2, 2), (3, 3, 3, 3), (1, 1)),
    "3x3 stem": ((1, 3, 17, 16), 24, (3, 3), (1, 1), (1, 1, 1, 1), (1, 1)),
    "odd channels": ((1, 13, 9, 9), 21, (3, 3), (1, 1), (1, 1, 1, 1), (1, 1)),
    "24 channels": ((1, 24, 9, 9), 40, (3, 3), (1, 1), (1, 1, 1, 1), (1, 1)),
    "pointwise, 16 channels": ((1, 16, 9, 9), 40, (1, 1), (1, 1), (0, 0, 0, 0), (1, 1)),
    "pointwise, 77 channels": ((2, 77, 5, 9), 50, (1, 1), (1, 1), (0, 0, 0, 0), (1, 1)),
    "row kernel": ((1, 16, 9, 9), 16, (1, 7), (1, 1), (0, 3, 0, 3), (1, 1)),
    "padding beyond the kernel": ((1, 16, 4, 4), 16, (2, 2), (1, 1), (3, 3, 3, 3), (1, 1)),
}


def _convolution(case, epilogue=None):
    shape, channels, kernel, strides, padding, dilation = case

    def body(x, *others):
        result = nn.conv2d(
            x,
            weights(channels, shape[1], *kernel),
            strides=strides,
            padding=padding,
            dilation=dilation,
        )
        return epilogue(result, *others) if epilogue else result

    return body


def _biased(channels):
    return lambda y: nn.relu(op.add(y, weights(1, channels, 1, 1, seed=2)))


@pytest.mark.parametrize("precision", TOLERANCES)
@pytest.mark.parametrize("layout", ["NHWC", "NCHW32c"])
@pytest.mark.parametrize("case", CASES)
def test_convolution(case, layout, precision):
    found = CASES[case]
    decision = Decision(unit="amx", layout=layout, precision=precision)
    assert (
        error(_convolution(found, _biased(found[1])), [found[0]], decision) < TOLERANCES[precision]
    )


@pytest.mark.parametrize("precision", TOLERANCES)
@pytest.mark.parametrize("case", RAGGED)
def test_convolution_over_channels_that_fill_no_blocks(case, precision):
    found = RAGGED[case]
    decision = Decision(unit="amx", layout="NHWC", precision=precision)
    assert (
        error(_convolution(found, _biased(found[1])), [found[0]], decision) < TOLERANCES[precision]
    )


@pytest.mark.parametrize("precision", TOLERANCES)
@pytest.mark.parametrize("algorithm", [one.name for one in algorithms_of("amx")])
@pytest.mark.parametrize("shape", [(1, 64, 3, 3), (1, 64, 12, 12), (1, 64, 1, 1)])
def test_register_blocks(shape, algorithm, precision):
    body = _convolution((shape, 112, (1, 1), (1, 1), (0, 0, 0, 0), (1, 1)))
    decision = Decision(unit="amx", layout="NHWC", precision=precision, algorithm=algorithm)
    (decline,) = answers(model(body, shape), decision)
    if decline is not None:
        assert "which is the same here" in decline.got
        return
    assert error(body, [shape], decision) < TOLERANCES[precision]


EPILOGUES = {
    "residual": (lambda y, r: nn.relu(op.add(y, r)), [(2, 64, 9, 9)]),
    "gate": (op.multiply, [(2, 64, 1, 1)]),
    "silu": (nn.silu, []),
    "hard swish": (
        lambda y: op.multiply(y, op.clip(op.add(y, relax.const(3.0, "float32")), 0, 6)),
        [],
    ),
}


@pytest.mark.parametrize("precision", TOLERANCES)
@pytest.mark.parametrize("layout", ["NHWC", "NCHW32c"])
@pytest.mark.parametrize("kernel", [1, 3])
@pytest.mark.parametrize("name", EPILOGUES)
def test_epilogues(name, kernel, layout, precision):
    epilogue, others = EPILOGUES[name]
    pad = kernel // 2
    case = ((2, 32, 9, 9), 64, (kernel, kernel), (1, 1), (pad,) * 4, (1, 1))
    decision = Decision(unit="amx", layout=layout, precision=precision)
    assert error(_convolution(case, epilogue), [case[0], *others], decision) < TOLERANCES[precision]


@pytest.mark.parametrize("precision", TOLERANCES)
@pytest.mark.parametrize(
    ("shape", "columns"), [((1, 640), 1000), ((8, 100), 70), ((2, 9, 96), 64), ((1, 5, 33), 48)]
)
def test_matrix_product(shape, columns, precision):
    def body(x):
        product = op.matmul(x, weights(shape[-1], columns))
        return nn.gelu(op.add(product, weights(columns)))

    decision = Decision(unit="amx", precision=precision)
    assert error(body, [shape], decision) < TOLERANCES[precision]


@st.composite
def convolutions(draw):
    channels = draw(st.sampled_from([2, 3, 8, 20, 32, 33, 64]))
    kernel = (draw(st.integers(1, 4)), draw(st.integers(1, 4)))
    strides = (draw(st.integers(1, 3)), draw(st.integers(1, 3)))
    dilation = (draw(st.integers(1, 2)), 1 if channels % 32 else draw(st.integers(1, 2)))
    padding = tuple(draw(st.integers(0, 3)) for _ in range(4))
    shape = (draw(st.integers(1, 2)), channels, draw(st.integers(1, 20)), draw(st.integers(1, 20)))
    for axis in (0, 1):
        reach = (kernel[axis] - 1) * dilation[axis] + 1
        assume(shape[2 + axis] + padding[axis] + padding[axis + 2] >= reach)
    out = draw(st.sampled_from([1, 16, 20, 32, 48, 96]))
    return (shape, out, kernel, strides, padding, dilation)


@settings(
    max_examples=examples(20), deadline=None, suppress_health_check=[HealthCheck.filter_too_much]
)
@given(convolutions(), st.sampled_from(list(TOLERANCES)))
def test_any_convolution(case, precision):
    decision = Decision(unit="amx", layout="NHWC", precision=precision)
    assert error(_convolution(case), [case[0]], decision) < 2 * TOLERANCES[precision]


def test_a_chain_keeps_its_layout_and_agrees():
    def body(x):
        first = nn.relu(nn.conv2d(x, weights(64, 32, 3, 3, seed=1), padding=1))
        second = nn.max_pool2d(first, (2, 2), strides=(2, 2))
        return op.add(nn.conv2d(second, weights(64, 64, 1, 1, seed=2)), second)

    module, x = model(body, (1, 32, 12, 12)), random_array(1, 32, 12, 12)
    decision = Decision(unit="amx", layout="NHWC", precision="split-bf16")
    assert answers(module, decision).count(None) == 2, "both convolutions run on tiles"
    results = {
        layout: run(module, [x], Decision(unit="amx", layout=layout, precision="split-bf16"))
        for layout in ("NHWC", "NCHW32c")
    }
    np.testing.assert_allclose(results["NHWC"], results["NCHW32c"], rtol=1e-4, atol=1e-3)


# input, output channels, kernel, groups
GROUPED = {
    "pointwise": ((1, 272, 7, 7), 272, 1, 4),
    "pointwise, few channels": ((2, 24, 9, 9), 112, 1, 4),
    "3x3 of two": ((1, 64, 9, 9), 96, 3, 2),
    "3x3 of many": ((1, 128, 9, 8), 128, 3, 32),
    "wide groups": ((1, 256, 5, 5), 96, 3, 4),
    "ragged": ((1, 21, 9, 9), 33, 3, 3),
}


def _grouped(case, shuffles):
    shape, channels, kernel, groups = GROUPED[case]

    def body(x):
        by = weights(channels, shape[1] // groups, kernel, kernel)
        y = _biased(channels)(nn.conv2d(x, by, padding=kernel // 2, groups=groups))
        return shuffled(y, (shape[0], channels, *shape[2:]), groups) if shuffles else y

    return body


@pytest.mark.parametrize("precision", TOLERANCES)
@pytest.mark.parametrize("algorithm", ["direct", "wide", "channels"])
@pytest.mark.parametrize("shuffles", [False, True], ids=["in order", "shuffled"])
@pytest.mark.parametrize("case", GROUPED)
def test_groups(case, shuffles, algorithm, precision):
    shape = GROUPED[case][0]
    body = _grouped(case, shuffles)
    for layout in ("NHWC", "NCHW32c"):
        decision = Decision(unit="amx", layout=layout, precision=precision, algorithm=algorithm)
        (decline,) = answers(model(body, shape), decision)
        if decline is None:
            assert error(body, [shape], decision) < TOLERANCES[precision]
        else:
            assert "which is the same here" in decline.got or layout == "NCHW32c"


@pytest.mark.parametrize("shape", [(1, 1, 1, 24), (24,), (1, 24, 1, 1), (24, 1, 1), (24, 24, 24)])
def test_a_shuffle_moves_channels_and_nothing_else(shape):
    """Whatever else of an operand is as long."""

    def body(x):
        y = nn.conv2d(x, weights(24, 12, 1, 1), groups=2)
        return shuffled(op.add(y, weights(*shape)), (1, 24, 24, 24), 2)

    decision = Decision(unit="amx", layout="NHWC", precision="bf16")
    assert error(body, [(1, 24, 24, 24)], decision) < TOLERANCES["bf16"]


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("images", [1, 2, 3])
def test_single_pixels_in_plain_layout(images, groups):
    shape = (images, 64, 1, 1)
    decision = Decision(unit="amx", precision="bf16")
    by = weights(96, 64 // groups, 1, 1)
    assert error(lambda x: nn.conv2d(x, by, groups=groups), [shape], decision) < TOLERANCES["bf16"]


def test_groups_do_not_multiply_by_the_zeros_between_them():
    shape, channels, *_ = GROUPED["3x3 of many"]
    whole = model(_convolution((shape, channels, (3, 3), (1, 1), (1, 1, 1, 1), (1, 1))), shape)
    parts = model(_grouped("3x3 of many", shuffles=False), shape)
    decision = Decision(unit="amx", layout="NHWC", precision="bf16")
    (all_products,), (products,) = (
        [
            amx.hints(f, decision)["products"]
            for f in PartitionSubgraphs()(module).functions.values()
            if subgraph_id(f)
        ]
        for module in (whole, parts)
    )
    assert products == all_products / 4, "32 of 128 channels for each block of 32"


DECLINED = {
    "a shuffle behind an activation": (
        lambda x: shuffled(
            op.add(nn.conv2d(x, weights(32, 16, 1, 1), groups=2), x), (1, 32, 8, 8), 2
        ),
        Decision(unit="amx", layout="NHWC", precision="bf16"),
    ),
    "depthwise": (
        lambda x: nn.conv2d(x, weights(32, 1, 3, 3), padding=1, groups=32),
        Decision(unit="amx", layout="NHWC", precision="bf16"),
    ),
    "pooling": (
        lambda x: nn.max_pool2d(x, (2, 2)),
        Decision(unit="amx", layout="NHWC", precision="bf16"),
    ),
    "f32": (
        lambda x: nn.conv2d(x, weights(32, 32, 1, 1)),
        Decision(unit="amx", layout="NHWC"),
    ),
    "plain images": (
        lambda x: nn.conv2d(x, weights(32, 32, 1, 1)),
        Decision(unit="amx", precision="bf16"),
    ),
    "unknown algorithm": (
        lambda x: nn.conv2d(x, weights(32, 32, 1, 1)),
        Decision(unit="amx", layout="NHWC", precision="bf16", algorithm="winograd"),
    ),
}


@pytest.mark.parametrize("name", DECLINED)
def test_declines(name):
    body, decision = DECLINED[name]
    (decline,) = answers(model(body, (1, 32, 8, 8)), decision)
    assert decline.got
    assert decline.expected
