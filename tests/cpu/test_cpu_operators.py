"""Everything but convolution against stock TVM, with kernels or through the fallback."""

from itertools import product

import numpy as np
import pytest
import tvm
from tiers import tiered_rows
from tvm import relax

from tests.cpu.support import TARGET, TOLERANCE, declines, error, model, run, weights
from tests.reference import run_relax
from tvm_passes.cpu import LowerCpu
from tvm_passes.cpu.host import has_bf16
from tvm_passes.cpu.legality import CPU_LAYOUTS
from tvm_passes.decision import Decision
from tvm_passes.layout import convert, tensor_layout

nn, op = relax.op.nn, relax.op


def local_response(x):
    squares = op.expand_dims(op.multiply(x, x), 1)
    mean = op.squeeze(
        nn.avg_pool3d(squares, (5, 1, 1), padding=(2, 0, 0, 2, 0, 0), count_include_pad=True), [1]
    )
    scale = op.add(op.multiply(mean, relax.const(1e-1, "float32")), relax.const(2.0, "float32"))
    return op.divide(x, op.power(scale, relax.const(0.75, "float32")))


KERNELS = {
    "max pool": ([(1, 32, 17, 19)], lambda x: nn.max_pool2d(x, (3, 3), (2, 2), (1, 1, 1, 1))),
    "max pool ceil": (
        [(1, 20, 12, 12)],
        lambda x: nn.max_pool2d(x, (3, 3), (2, 2), ceil_mode=True),
    ),
    "average pool": (
        [(2, 32, 9, 8)],
        lambda x: nn.relu(nn.avg_pool2d(x, (3, 3), padding=(1, 1, 1, 1), count_include_pad=False)),
    ),
    "average pool, padded": (
        [(1, 48, 8, 9)],
        lambda x: nn.avg_pool2d(x, (2, 2), (2, 2), (1, 1, 1, 1), count_include_pad=True),
    ),
    "global average": ([(1, 48, 7, 7)], lambda x: nn.adaptive_avg_pool2d(x, (1, 1))),
    "global average, 20 channels": ([(1, 20, 7, 7)], lambda x: nn.adaptive_avg_pool2d(x, (1, 1))),
    "mean": ([(1, 48, 7, 7)], lambda x: op.mean(x, [2, 3], keepdims=True)),
    "concat": (
        [(1, 32, 7, 9), (1, 16, 7, 9), (1, 48, 7, 9)],
        lambda a, b, c: nn.relu(op.concat([a, b, c], 1)),
    ),
    "concat with scale": (
        [(1, 32, 7, 9), (1, 16, 7, 9)],
        lambda a, b: nn.relu(op.multiply(op.concat([a, b], 1), weights(1, 48, 1, 1))),
    ),
    "scale and add": (
        [(1, 32, 7, 9)] * 2,
        lambda a, b: nn.silu(op.add(op.multiply(a, weights(1, 32, 1, 1)), b)),
    ),
    "gate": ([(1, 32, 7, 9), (1, 32, 1, 1)], lambda a, b: op.multiply(a, op.sigmoid(b))),
    "activations": (
        [(1, 32, 7, 9)] * 2,
        lambda a, b: op.add(nn.gelu(a), op.add(op.tanh(b), op.multiply(op.erf(a), op.exp(b)))),
    ),
    "rectifiers": (
        [(1, 32, 7, 9)],
        lambda a: op.add(nn.leakyrelu(a, 0.1), op.add(nn.gelu_tanh(a), op.clip(a, -0.5, 0.5))),
    ),
    "normalisation": ([(1, 32, 5, 6)], local_response),
}

PLAIN = {
    "dense": ([(1, 64)], lambda x: nn.relu(op.add(op.matmul(x, weights(64, 100)), weights(100)))),
    "dense, odd depth": ([(1, 63)], lambda x: op.matmul(x, weights(63, 10))),
    "dense, few columns": ([(1, 64)], lambda x: op.add(op.matmul(x, weights(64, 3)), weights(3))),
    "dense batch": ([(33, 64)], lambda x: nn.gelu(op.matmul(x, weights(64, 100)))),
    "dense sequence": (
        [(2, 33, 64)],
        lambda x: op.add(op.matmul(x, weights(64, 100)), weights(100)),
    ),
    "dense residual": (
        [(1, 33, 64), (1, 33, 96)],
        lambda x, r: op.add(op.matmul(x, weights(64, 96)), r),
    ),
    "dense pixels": (
        [(2, 5, 7, 64), (2, 5, 7, 96), (1, 1, 1, 96)],
        lambda x, r, b: nn.gelu(op.add(op.add(op.matmul(x, weights(64, 96)), r), b)),
    ),
    "dense pixels, a term per row": (
        [(2, 5, 7, 64), (2, 1, 1, 1)],
        lambda x, r: op.add(op.matmul(x, weights(64, 96)), r),
    ),
    "dense pixels, one column": ([(1, 5, 7, 64)], lambda x: op.matmul(x, weights(64, 1))),
    "dense pixel": ([(1, 1, 1, 64)], lambda x: op.add(op.matmul(x, weights(64, 96)), weights(96))),
    "batched matmul": ([(2, 4, 5, 6), (2, 4, 6, 5)], op.matmul),
    "batched matmul, many columns": ([(3, 37, 70), (3, 70, 197)], op.matmul),
    "batched matmul, whole vectors": ([(1, 2, 64, 32), (1, 2, 32, 128)], op.matmul),
    "batched matmul, scaled and masked": (
        [(1, 3, 17, 32), (1, 3, 32, 17), (1, 1, 1, 17)],
        lambda q, k, m: op.add(op.divide(op.matmul(q, k), relax.const(5.0, "float32")), m),
    ),
    "batched matmul, a mask for each batch": (
        [(2, 3, 17, 32), (2, 3, 32, 17), (2, 1, 1, 17)],
        lambda q, k, m: op.add(op.matmul(q, k), m),
    ),
    "batched matmul, one row": ([(5, 1, 32), (5, 32, 17)], op.matmul),
    "batched matmul, broadcast": ([(5, 4, 32), (1, 32, 17)], op.matmul),
    "batched matmul of matrices": ([(4, 32), (32, 17)], op.matmul),
    "batched matmul by a vector": ([(2, 4, 32), (32,)], op.matmul),
    "softmax": ([(3, 100)], lambda x: nn.softmax(x, -1)),
    "softmax, whole vectors": ([(2, 3, 70, 64)], lambda x: nn.softmax(x, 3)),
    "softmax, few columns": ([(5, 3)], lambda x: nn.softmax(x, -1)),
    "softmax, one column": ([(5, 1)], lambda x: nn.softmax(x, -1)),
    "softmax, many columns": ([(1, 4099)], lambda x: op.multiply(nn.softmax(x, -1), weights(4099))),
    "softmax, another axis": ([(5, 6, 7)], lambda x: nn.softmax(x, 1)),
    "softmax, masked": (
        [(3, 37)],
        lambda x: nn.softmax(op.multiply(x, relax.const(-1e30, "float32")), -1),
    ),
    "layer norm, pixels": (
        [(2, 5, 7, 96)],
        lambda x: nn.layer_norm(x, weights(96), weights(96, seed=3), [3], epsilon=1e-2),
    ),
    "layer norm, neither scale nor shift": (
        [(2, 21)],
        lambda x: nn.layer_norm(x, weights(21), weights(21), [-1], center=False, scale=False),
    ),
    "layer norm of several axes": (
        [(2, 5, 6)],
        lambda x: nn.layer_norm(x, weights(5, 6), weights(5, 6, seed=3), [1, 2]),
    ),
    "layer norm": (
        [(2, 33, 100)],
        lambda x: nn.layer_norm(x, weights(100), weights(100, seed=3), [-1]),
    ),
    "flatten": ([(1, 48, 7, 7)], lambda x: op.reshape(nn.relu(x), (1, 48 * 49))),
    "transpose": ([(2, 8, 9, 16)], lambda x: op.permute_dims(x, [0, 2, 3, 1])),
    "odd concat": ([(3, 5, 7), (3, 4, 7)], lambda a, b: op.concat([a, b], 1)),
    "odd power": ([(4, 40)], lambda x: op.power(op.abs(x), relax.const(0.3, "float32"))),
    "resize": (
        [(1, 32, 7, 9)],
        lambda x: op.image.resize2d(
            x,
            (14, 18),
            layout="NCHW",
            method="nearest_neighbor",
            coordinate_transformation_mode="asymmetric",
            rounding_method="floor",
        ),
    ),
    "transposed convolution": (
        [(1, 32, 7, 9)],
        lambda x: nn.relu(
            nn.conv2d_transpose(
                x,
                weights(32, 16, 3, 3),
                strides=(2, 2),
                padding=(1, 1, 1, 1),
                output_padding=(1, 1),
            )
        ),
    ),
}


def _takes(name, layout):
    """Whether the first input lies in `layout` where a decision says so."""
    return tensor_layout(KERNELS[name][0][0], layout) == layout


@pytest.mark.parametrize(
    ("name", "layout"), [(n, la) for n in KERNELS for la in CPU_LAYOUTS if _takes(n, la)]
)
def test_kernel_equals_stock_tvm(name, layout):
    shapes, body = KERNELS[name]
    decision = Decision(unit="cpu", layout=layout)
    assert declines(model(body, *shapes), decision) == []
    assert error(body, shapes, decision) < TOLERANCE


STORED = {"bf16": 6e-3, "split-bf16": 2e-5}
"""Precision → what rounding to its storage costs."""
STORED_IN_BLOCKS = (
    "max pool",
    "average pool",
    "concat",
    "concat with scale",
    "scale and add",
    "gate",
    "activations",
    "rectifiers",
    "normalisation",
)
STORED_IN_TWO = ("max pool ceil", "average pool, padded", "global average", "mean")
IN_PAIRS_DAILY = ("average pool, padded", "mean", "scale and add", "activations")
"""Whose kernels of pairs are tested daily in NHWC: LLVM and TVM take seconds for such kernels."""


@pytest.mark.skipif(not has_bf16(TARGET), reason="the CPU has no AVX512_BF16")
@pytest.mark.parametrize(
    ("name", "layout", "precision"),
    tiered_rows(
        [
            *product(STORED_IN_BLOCKS, ("NCHW", "NHWC", "NCHW32c"), STORED),
            *product(STORED_IN_TWO, ("NCHW", "NHWC"), STORED),
        ],
        [
            *product((*STORED_IN_BLOCKS, *STORED_IN_TWO), ("NHWC",), ("bf16",)),
            *product(("max pool", "concat with scale", "gate"), ("NCHW", "NCHW32c"), STORED),
            *product(IN_PAIRS_DAILY, ("NHWC",), ("split-bf16",)),
        ],
    ),
)
def test_kernel_reads_and_writes_other_storages(name, layout, precision):
    shapes, body = KERNELS[name]
    decision = Decision(unit="cpu", layout=layout, precision=precision)
    assert declines(model(body, *shapes), decision) == []
    assert error(body, shapes, decision) < STORED[precision]


@pytest.mark.skipif(not has_bf16(TARGET), reason="the CPU has no AVX512_BF16")
@pytest.mark.parametrize("precision", STORED)
@pytest.mark.parametrize(("depth", "columns"), [(64, 100), (63, 10), (7, 256), (1, 3)])
def test_weights_of_one_row_are_held_in_fewer_bits(depth, columns, precision):
    """Of 24 bits where activations are pairs: a sixteenth bit of significand, as these have."""

    def body(x):
        return nn.relu(op.add(op.matmul(x, weights(depth, columns)), weights(columns)))

    decision = Decision(unit="cpu", precision=precision)
    assert declines(model(body, (1, depth)), decision) == []
    assert error(body, [(1, depth)], decision) < STORED[precision]
    (batch,) = declines(model(body, (2, depth)), decision)
    assert "no NCHW kernel" in batch.got


@pytest.mark.parametrize("name", [name for name in KERNELS if not _takes(name, "NCHW16c")])
def test_declines_a_layout_that_no_tensor_takes(name):
    shapes, body = KERNELS[name]
    (decline,) = declines(model(body, *shapes), Decision(unit="cpu", layout="NCHW16c"))
    assert "no NCHW16c tensor that fits" in decline.got


@pytest.mark.parametrize("name", PLAIN)
def test_plain_equals_stock_tvm(name):
    shapes, body = PLAIN[name]
    assert error(body, shapes, Decision(unit="cpu")) < TOLERANCE


@pytest.mark.parametrize("name", ["softmax", "resize"])
def test_declines_where_there_is_no_kernel(name):
    shapes, body = PLAIN[name]
    (decline,) = declines(model(body, *shapes), Decision(unit="cpu", layout="NHWC"))
    assert "NHWC" in decline.got
    assert "NCHW" in decline.expected


@pytest.mark.skipif(not has_bf16(TARGET), reason="the CPU has no AVX512_BF16")
@pytest.mark.parametrize("layout", ["NCHW", "NHWC", "NCHW32c"])
def test_a_maximum_of_bfloat16_is_exact(layout):
    """Of negative numbers and infinities too; padding never wins."""
    array = -np.abs(np.random.default_rng(0).standard_normal((1, 96, 9, 11))).astype("float32")
    array[0, 3], array[0, 40, 2, 3], array[0, 95, 8] = -np.inf, np.inf, 0.0
    array = convert(convert(array, "NCHW", "NCHW.bf16"), "NCHW.bf16", "NCHW")
    pooled = model(lambda x: nn.max_pool2d(x, (3, 3), (2, 2), (1, 1, 1, 1)), array.shape)
    got = run(pooled, [array], Decision(unit="cpu", layout=layout, precision="bf16"))
    padded = np.pad(array, ((0, 0), (0, 0), (1, 1), (1, 1)), constant_values=-np.inf)
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(2, 3))[:, :, ::2, ::2]
    expected = windows.max(axis=(4, 5))
    inside = np.isfinite(expected) | (expected > 0)
    np.testing.assert_array_equal(got[inside], expected[inside])
    assert (got[~inside] < -1e38).all()


@pytest.mark.skipif(not has_bf16(TARGET), reason="the CPU has no AVX512_BF16")
@pytest.mark.parametrize("shape", [(1, 49, 1), (1, 1, 1), (1, 49, 16)])
def test_an_operand_in_bfloat16_is_broadcast(shape):
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((1, 49, 16)).astype("float32")
    divisor = 1 + rng.random(shape).astype("float32")
    quotient = model(op.divide, rows.shape, shape)
    got = run(quotient, [rows, divisor], Decision(unit="cpu", precision="bf16"))
    np.testing.assert_allclose(got, rows / divisor, rtol=2**-6)


def test_normalisation_of_large_and_tiny_values():
    """What its squares overflow from is scaled to nothing; of what is no number, no number."""
    array = np.random.default_rng(0).standard_normal((1, 32, 5, 5)).astype("float32")
    array[0, :, 0] *= 1e-20
    array[0, :, 1] *= 1e15
    array[0, 3, 2, 2], array[0, 9, 3, 3] = 1e30, np.nan
    lrn = model(local_response, array.shape)
    with np.errstate(over="ignore", invalid="ignore"):
        expected = run_relax(lrn, [array])[0]
    got = run(lrn, [array], Decision(unit="cpu", layout="NHWC"))
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("function", [nn.silu, nn.gelu, op.sigmoid, op.tanh, op.exp, op.erf])
def test_no_number_stays_no_number(function):
    rows = np.random.default_rng(0).standard_normal((2, 37)).astype("float32")
    rows[1, 3] = np.nan
    result = run(model(function, (2, 37)), [rows], Decision(unit="cpu"))
    np.testing.assert_array_equal(np.isnan(result), np.isnan(rows))


@pytest.mark.parametrize("spoilt", [np.nan, np.inf])
def test_softmax_of_what_has_none(spoilt):
    rows = np.random.default_rng(0).standard_normal((3, 37)).astype("float32")
    rows[1, 3], rows[2] = spoilt, -np.inf
    result = run(model(nn.softmax, (3, 37)), [rows], Decision(unit="cpu"))
    assert np.isfinite(result[0]).all()
    assert np.isnan(result[1:]).all()


def test_same_subgraphs_share_a_kernel():
    def body(x):
        first = nn.relu(nn.conv2d(x, weights(32, 32, 3, 3, seed=1), padding=1))
        return nn.relu(nn.conv2d(first, weights(32, 32, 3, 3, seed=2), padding=1))

    from tests.cpu.support import decide

    lowered = LowerCpu(TARGET)(decide(model(body, (1, 32, 9, 9)), Decision(unit="cpu")))
    kernels = [f for f in lowered.functions.values() if isinstance(f, tvm.tirx.PrimFunc)]
    assert len(kernels) == 1
    assert error(body, [(1, 32, 9, 9)], Decision(unit="cpu")) < TOLERANCE
