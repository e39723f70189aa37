"""Winograd convolution: the matrices, and the kernels against stock TVM."""

from itertools import product

import numpy as np
import pytest
from tiers import tiered_rows
from tvm import relax

from tests.cpu.support import declines, error, model, weights
from tvm_passes.cpu.winograd_matrices import apply_matrix, winograd_matrices
from tvm_passes.decision import Decision

nn = relax.op.nn


@pytest.mark.parametrize("outputs", [2, 4])
def test_matrices_compute_a_correlation(outputs):
    matrices = winograd_matrices(outputs)
    generator = np.random.default_rng(0)
    signal, taps = generator.standard_normal(outputs + 2), generator.standard_normal(3)
    got = matrices.output @ ((matrices.filter @ taps) * (matrices.input @ signal))
    np.testing.assert_allclose(got, np.correlate(signal, taps, "valid"), atol=1e-12)


@pytest.mark.parametrize("outputs", [2, 4])
@pytest.mark.parametrize("name", ["input", "output"])
def test_shared_sums_change_nothing(outputs, name):
    matrix = getattr(winograd_matrices(outputs), name)
    column = np.random.default_rng(1).standard_normal(matrix.shape[1])
    got = apply_matrix(matrix, list(column), lambda terms: sum(c * v for c, v in terms))
    np.testing.assert_allclose(got, matrix @ column, atol=1e-12)


LAYOUTS = ("NCHW16c", "NHWC", "NCHW8c")
TOLERANCES = {"winograd": 5e-6, "winograd2": 2e-6}
CASES = {
    "14x14": ((1, 32, 14, 14), 64, (1, 1, 1, 1)),
    "padded unevenly": ((2, 16, 13, 11), 48, (1, 0, 2, 1)),
    "28x28": ((1, 64, 28, 28), 64, (1, 1, 1, 1)),
    "deep": ((1, 256, 7, 7), 256, (1, 1, 1, 1)),
    "one pixel": ((1, 16, 3, 3), 16, (0, 0, 0, 0)),
}
"""Input, output channels and padding."""


@pytest.mark.parametrize(
    ("name", "algorithm", "layout"),
    tiered_rows(
        product(CASES, TOLERANCES, LAYOUTS),
        [
            *product(["padded unevenly"], TOLERANCES, LAYOUTS),
            *product(["14x14", "one pixel"], TOLERANCES, LAYOUTS[:2]),
            *product(["28x28", "deep"], ["winograd"], LAYOUTS[:1]),
        ],
    ),
)
def test_equals_stock_tvm(name, algorithm, layout):
    shape, channels, padding = CASES[name]

    def body(x):
        y = nn.conv2d(x, weights(channels, shape[1], 3, 3), padding=padding)
        return nn.relu(relax.op.add(y, weights(1, channels, 1, 1, seed=2)))

    decision = Decision(unit="cpu", layout=layout, algorithm=algorithm)
    assert declines(model(body, shape), decision) == []
    assert error(body, [shape], decision) < TOLERANCES[algorithm]


@pytest.mark.parametrize(
    "arguments", [{"strides": 2}, {"dilation": 2}, {"groups": 2}, {"layout": "NCHW"}, {"kernel": 5}]
)
def test_declines_other_shapes(arguments):
    arguments = {"padding": 1, **arguments}
    layout, kernel = arguments.pop("layout", "NCHW16c"), arguments.pop("kernel", 3)
    filters = weights(64, 64 // arguments.get("groups", 1), kernel, kernel)
    module = model(lambda x: nn.conv2d(x, filters, **arguments), (1, 64, 14, 14))
    (decline,) = declines(module, Decision(unit="cpu", layout=layout, algorithm="winograd"))
    assert decline.operator == "nn.conv2d"
    assert "winograd" in decline.got


def test_declines_other_operators():
    module = model(lambda x: nn.max_pool2d(x, (2, 2)), (1, 64, 14, 14))
    (decline,) = declines(module, Decision(unit="cpu", layout="NHWC", algorithm="winograd"))
    assert decline.operator == "nn.max_pool2d"
