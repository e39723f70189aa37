"""Direct convolution against stock TVM: layouts, tails, padding, groups, epilogues."""

from itertools import product

import pytest
from tiers import tiered_rows
from tvm import relax

from tests.cpu.support import (
    TOLERANCE,
    declines,
    error,
    model,
    random_array,
    run,
    shuffled,
    weights,
)
from tests.reference import relative_error, run_relax
from tvm_passes.cpu import host_target
from tvm_passes.decision import Decision
from tvm_passes.layouts import LAYOUTS

nn = relax.op.nn
DAILY_LAYOUTS = ("NCHW", "NHWC", "NCHW16c")
"""One of each kind: planes, pixels and blocks."""

# input, output channels, kernel, strides, padding (top, left, bottom, right), dilation, groups
CASES = {
    "pointwise": ((1, 32, 7, 7), 96, (1, 1), (1, 1), (0, 0, 0, 0), (1, 1), 1),
    "pointwise strided": ((1, 48, 9, 8), 32, (1, 1), (2, 2), (0, 0, 0, 0), (1, 1), 1),
    "3x3": ((1, 32, 14, 14), 64, (3, 3), (1, 1), (1, 1, 1, 1), (1, 1), 1),
    "wide": ((1, 16, 5, 57), 32, (3, 3), (1, 1), (1, 1, 1, 1), (1, 1), 1),
    "stem": ((1, 3, 30, 31), 32, (7, 7), (2, 2), (3, 3, 3, 3), (1, 1), 1),
    "asymmetric": ((2, 32, 9, 11), 48, (3, 5), (1, 1), (1, 2, 0, 1), (1, 1), 1),
    "dilated": ((1, 32, 9, 11), 32, (3, 3), (2, 1), (2, 2, 2, 2), (2, 2), 1),
    "row kernel": ((1, 16, 9, 9), 16, (1, 7), (1, 1), (0, 3, 0, 3), (1, 1), 1),
    "padding beyond the kernel": ((1, 16, 4, 4), 16, (2, 2), (1, 1), (3, 3, 3, 3), (1, 1), 1),
    "odd channels": ((1, 13, 9, 9), 21, (3, 3), (1, 1), (1, 1, 1, 1), (1, 1), 1),
    "24 channels": ((1, 24, 9, 9), 40, (3, 3), (1, 1), (1, 1, 1, 1), (1, 1), 1),
    "grouped": ((1, 64, 9, 9), 64, (3, 3), (1, 1), (1, 1, 1, 1), (1, 1), 2),
    "ragged groups": ((1, 20, 9, 9), 24, (3, 3), (1, 1), (1, 1, 1, 1), (1, 1), 2),
    "depthwise": ((1, 48, 15, 14), 48, (3, 3), (2, 2), (1, 1, 1, 1), (1, 1), 48),
    "depthwise 5x5": ((1, 20, 9, 9), 20, (5, 5), (1, 1), (2, 2, 2, 2), (1, 1), 20),
    "depth multiplier": ((1, 16, 7, 7), 32, (3, 3), (1, 1), (1, 1, 1, 1), (1, 1), 16),
}


def _body(case, epilogue=None):
    shape, channels, kernel, strides, padding, dilation, groups = CASES[case]

    def body(x, *others):
        result = nn.conv2d(
            x,
            weights(channels, shape[1] // groups, *kernel),
            strides=strides,
            padding=padding,
            dilation=dilation,
            groups=groups,
        )
        return epilogue(result, *others) if epilogue else result

    return body


@pytest.mark.parametrize(
    ("case", "layout"),
    tiered_rows(
        product(CASES, LAYOUTS),
        [*product(CASES, DAILY_LAYOUTS), *product(["3x3", "depthwise"], LAYOUTS)],
    ),
)
def test_equals_stock_tvm(case, layout):
    body = _body(case, lambda y: nn.relu(relax.op.add(y, weights(1, CASES[case][1], 1, 1, seed=2))))
    assert error(body, [CASES[case][0]], Decision(unit="cpu", layout=layout)) < TOLERANCE


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize(("groups", "channels"), [(2, 64), (4, 72), (3, 21)])
def test_a_shuffle_is_where_the_results_go(groups, channels, layout):
    """Alone, and as a part of a concatenation."""

    def body(x, r):
        y = nn.conv2d(x, weights(channels, 12 // groups, 3, 3), padding=1, groups=groups)
        y = nn.relu(relax.op.add(y, weights(1, channels, 1, 1, seed=2)))
        y = shuffled(y, (2, channels, 9, 7), groups)
        return relax.op.concat([nn.max_pool2d(r, (1, 1)), y], axis=1)

    for emit in (body, lambda x, r: relax.op.add(body(x, r), body(x, r))):
        module = model(emit, (2, 12, 9, 7), (2, 5, 9, 7))
        assert not any("nn.conv2d" in str(d) for d in declines(module, Decision.parse("cpu:NHWC")))
        shapes = [(2, 12, 9, 7), (2, 5, 9, 7)]
        assert error(emit, shapes, Decision(unit="cpu", layout=layout)) < TOLERANCE


@pytest.mark.parametrize("algorithm", ["direct", "winograd"])
def test_a_shuffle_across_blocks_is_declined(algorithm):
    def body(x):
        y = nn.conv2d(x, weights(32, 16, 3, 3), padding=1, groups=2)
        return shuffled(y, (1, 32, 9, 7), 2)

    decision = Decision(unit="cpu", layout="NCHW16c", algorithm=algorithm)
    assert declines(model(body, (1, 32, 9, 7)), decision)


EPILOGUES = {
    "residual": lambda y, r: nn.relu(relax.op.add(y, r)),
    "clip": lambda y, r: relax.op.clip(relax.op.add(y, r), 0.0, 6.0),
    "silu": lambda y, r: relax.op.multiply(nn.silu(y), r),
    "spelt-out silu": lambda y, r: relax.op.add(relax.op.multiply(y, relax.op.sigmoid(y)), r),
    "gelu": lambda y, r: relax.op.subtract(nn.gelu(y), r),
    "leaky": lambda y, r: relax.op.maximum(nn.leakyrelu(y, 0.1), r),
    "scale by channel": lambda y, _r: relax.op.multiply(y, weights(1, 32, 1, 1)),
    "tanh": lambda y, r: relax.op.add(relax.op.tanh(y), r),
    "prelu": lambda y, _r: nn.prelu(y, weights(32), axis=1),
}


@pytest.mark.parametrize(
    ("name", "layout"),
    tiered_rows(
        product(EPILOGUES, LAYOUTS),
        [
            *product(EPILOGUES, ["NHWC"]),
            *product(["residual"], LAYOUTS),
            *product(["scale by channel", "prelu", "silu"], DAILY_LAYOUTS),
        ],
    ),
)
def test_epilogue(name, layout):
    def body(x, r):
        y = nn.conv2d(x, weights(32, 16, 3, 3), padding=1)
        return EPILOGUES[name](y, r)

    shapes = [(1, 16, 9, 9), (1, 32, 9, 9)]
    assert error(body, shapes, Decision(unit="cpu", layout=layout)) < TOLERANCE


@pytest.mark.parametrize("mcpu", ["haswell", "x86-64-v2"])
def test_narrower_vectors(mcpu):
    target = host_target({"kind": "llvm", "mcpu": mcpu})
    for layout in ("NCHW16c", "NHWC", "NCHW8c"):
        body = _body("24 channels", nn.relu)
        decision = Decision(unit="cpu", layout=layout)
        assert error(body, [CASES["24 channels"][0]], decision, target) < TOLERANCE


def test_declines_packed_groups_that_do_not_fill_blocks():
    shape, channels = (1, 48, 9, 9), 48
    module = model(lambda x: nn.conv2d(x, weights(channels, 24, 3, 3), padding=1, groups=2), shape)
    (decline,) = declines(module, Decision(unit="cpu", layout="NCHW16c"))
    assert decline.operator == "nn.conv2d"
    assert "NCHW16c" in decline.got
    assert declines(module, Decision(unit="cpu", layout="NHWC")) == []


def test_declines_unknown_precision_and_algorithm():
    module = model(nn.relu, (1, 16, 4, 4))
    (decline,) = declines(module, Decision(unit="cpu", precision="int8"))
    assert "int8" in decline.got
    (decline,) = declines(module, Decision(unit="cpu", algorithm="fft"))
    assert "fft" in decline.got


def test_small_weights_stay_inline():
    module = model(lambda x: nn.conv2d(x, weights(4, 1, 2, 2)), (1, 1, 5, 5))
    x = random_array(1, 1, 5, 5)
    got = run(module, [x], Decision(unit="cpu", layout="NHWC"))
    assert relative_error(got, run_relax(module, [x])[0]) < TOLERANCE
