"""Operators that move or choose values work on integers; weights stay integers; biases do not."""

from __future__ import annotations

import numpy as np
import pytest
from normalizing import cleaned, module_of, operators
from reference import run_relax
from tvm import relax
from tvm.relax.op import add, concat, dequantize, matmul, nn, permute_dims, quantize, reshape

from tvm_passes.ir import Constant, main_bindings
from tvm_passes.normalize import FoldConstants, FoldQuantization

SHAPE = (1, 8, 6, 6)


def scale(value=0.05):
    return relax.const(value, "float32")


def zero(value=3):
    return relax.const(value, "int8")


def check(emit, expected):
    """`FoldQuantization` leaves the `expected` operators, the same values, and nothing more to do."""
    before = module_of(emit, SHAPE, "int8")
    after = cleaned(FoldQuantization(), before)
    assert sorted(operators(after).elements()) == sorted(expected.split())
    assert operators(cleaned(FoldQuantization(), after)) == operators(after)
    value = np.random.default_rng(0).integers(-128, 128, SHAPE).astype("int8")
    for got, want in zip(run_relax(after, [value]), run_relax(before, [value]), strict=True):
        np.testing.assert_array_equal(got, want)


def through(operator, steps=None):
    steps = steps or (scale(), zero())

    def emit(e, x):
        numbers = e(dequantize(x, scale(), zero()))
        return quantize(e(operator(e, numbers)), *steps)

    return emit


MOVING = {
    "max_pool": (lambda e, x: nn.max_pool2d(x, [2, 2], [2, 2]), "nn.max_pool2d"),
    "reshape": (lambda e, x: reshape(x, (8, 36)), "reshape"),
    "permute": (lambda e, x: permute_dims(x, [0, 2, 3, 1]), "permute_dims"),
    "concat": (lambda e, x: concat([x, x], axis=1), "concat"),
}


@pytest.mark.parametrize("name", MOVING)
def test_moving_operator_works_on_integers(name):
    operator, expected = MOVING[name]
    check(through(operator), expected)


def test_other_steps_stay():
    operator, expected = MOVING["max_pool"]
    check(through(operator, (scale(0.04), zero())), f"dequantize {expected} quantize")
    check(through(operator, (scale(), zero(0))), f"dequantize {expected} quantize")


def test_operator_with_new_values_stays():
    check(through(lambda e, x: add(x, x)), "dequantize add quantize")


def test_integers_of_permuted_weights_are_permuted():
    rng = np.random.default_rng(1)
    integers = relax.const(rng.integers(-128, 128, (5, 6)).astype("int8"))
    scales = relax.const(rng.uniform(0.01, 0.1, 5).astype("float32"))
    zeros = relax.const(np.zeros(5, "int8"))

    def emit(e, x):
        weights = e(permute_dims(e(dequantize(integers, scales, zeros, axis=0))))
        return matmul(e(dequantize(x, scale(), zero())), weights)

    check(emit, "dequantize dequantize matmul")


def test_bias_becomes_numbers_and_weights_stay():
    rng = np.random.default_rng(1)
    scales = relax.const(rng.uniform(0.01, 0.1, 8).astype("float32"))
    bias = relax.const(rng.integers(-1000, 1000, 8).astype("int32"))
    weights = relax.const(rng.integers(-128, 128, (8, 8, 1, 1)).astype("int8"))

    def emit(e, x):
        numbers = e(dequantize(x, scale(), zero()))
        zeros = [relax.const(np.zeros(8, dtype)) for dtype in ("int8", "int32")]
        product = e(nn.conv2d(numbers, e(dequantize(weights, scales, zeros[0], axis=0))))
        return add(product, e(reshape(e(dequantize(bias, scales, zeros[1], axis=0)), (1, 8, 1, 1))))

    before = module_of(emit, SHAPE, "int8")
    after = cleaned(FoldConstants(), before)
    assert operators(after) == {"dequantize": 2, "nn.conv2d": 1, "add": 1}
    value = rng.integers(-128, 128, SHAPE).astype("int8")
    np.testing.assert_allclose(
        run_relax(after, [value])[0], run_relax(before, [value])[0], rtol=1e-6
    )


def test_vector_becomes_numbers():
    vector = relax.const(np.arange(-4, 4, dtype="int8").reshape(8, 1, 1))

    def emit(e, x):
        return add(e(dequantize(x, scale(), zero())), e(dequantize(vector, scale(), zero())))

    assert operators(cleaned(FoldConstants(), module_of(emit, SHAPE, "int8"))) == {
        "dequantize": 1,
        "add": 1,
    }


def test_constant_that_is_added_becomes_numbers():
    rng = np.random.default_rng(1)
    table = relax.const(rng.integers(-128, 128, SHAPE).astype("int8"))

    def emit(e, x):
        return add(e(dequantize(x, scale(), zero())), e(dequantize(table, scale(), zero())))

    check(emit, "dequantize add")


@pytest.mark.parametrize("zeros", [np.zeros(6, "int8"), np.arange(6, dtype="int8")])
def test_weights_by_which_numbers_are_multiplied_become_numbers(zeros):
    rng = np.random.default_rng(1)
    integers = relax.const(rng.integers(-128, 128, (6, 5)).astype("int8"))
    scales = relax.const(rng.uniform(0.01, 0.1, 6).astype("float32"))

    def emit(e, x):
        numbers = e(relax.op.astype(x, "float32"))
        return matmul(numbers, e(dequantize(integers, scales, relax.const(zeros), axis=0)))

    check(emit, "astype matmul")


def test_equal_parameters_become_numbers():
    def emit(e, x):
        return dequantize(
            x, relax.const(np.full(8, 0.5, "float32")), relax.const(np.zeros(8, "int8")), axis=1
        )

    after = cleaned(FoldQuantization(), module_of(emit, SHAPE, "int8"))
    call = main_bindings(after["main"])[0].value
    assert all(isinstance(arg, Constant) and len(arg.ty.shape) == 0 for arg in call.args[1:])
