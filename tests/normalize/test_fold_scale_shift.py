"""Scales and shifts go into the weights before them, and nowhere else."""

from __future__ import annotations

import pytest
import tvm
from normalizing import SHAPE, batch_norm, check, constant, conv, scalar, unchanged
from tvm import relax
from tvm.relax.op import (
    add,
    divide,
    matmul,
    multiply,
    nn,
    subtract,
)

from tvm_passes.ir import main_bindings
from tvm_passes.normalize import (
    DecomposeBatchNorm,
    FoldConstants,
    FoldScaleShift,
    normalize,
)


def folded(emit, expected, shape=SHAPE):
    return check(
        tvm.transform.Sequential([FoldConstants(), DecomposeBatchNorm(), CLEAN, FoldScaleShift()]),
        emit,
        expected,
        shape,
    )


CLEAN = relax.transform.DeadCodeElimination(["main"])


@pytest.mark.parametrize("groups", [1, 2, 8])
def test_batch_norm_goes_into_the_convolution(groups):
    folded(lambda e, x: batch_norm(e, e(conv(x, groups=groups))), "nn.conv2d add")


@pytest.mark.parametrize("groups", [1, 2])
def test_batch_norm_goes_into_the_transposed_convolution(groups):
    def emit(e, x):
        y = e(nn.conv2d_transpose(x, constant(8, 6, 3, 3), strides=2, groups=groups))
        return batch_norm(e, y, 6 * groups)

    folded(emit, "nn.conv2d_transpose add")


def test_bias_and_norm_and_scale_become_one_bias():
    def emit(e, x):
        y = e(add(e(conv(x)), constant(1, 8, 1, 1)))
        y = e(multiply(batch_norm(e, y), constant(8, 1, 1)))
        return e(divide(e(subtract(y, constant(1, 8, 1, 1))), scalar(3.0)))

    after = folded(emit, "nn.conv2d add")
    shift = main_bindings(after["main"])[-1].value.args[1]
    assert tuple(shift.value.shape) == (1, 8, 1, 1)


def test_scale_goes_into_the_matrix():
    def emit(e, x):
        y = e(add(e(matmul(x, constant(6, 5))), constant(1, 5)))
        return e(add(e(multiply(y, constant(5))), scalar(0.5)))

    after = folded(emit, "matmul add", (3, 6))
    assert tuple(main_bindings(after["main"])[-1].value.args[1].value.shape) == (5,)


def test_chain_without_weights_becomes_two_operators():
    folded(lambda e, x: e(multiply(batch_norm(e, batch_norm(e, x)), scalar(2.0))), "multiply add")


def test_value_read_twice_is_not_folded():
    def emit(e, x):
        y = e(conv(x))
        return add(y, batch_norm(e, y))

    folded(emit, "nn.conv2d multiply add add")


def test_scale_passes_a_constant_that_varies_in_space():
    folded(
        lambda e, x: multiply(e(add(e(conv(x)), constant(1, 8, 6, 6))), scalar(2.0)),
        "nn.conv2d add",
    )


def test_scale_that_varies_in_space_stays():
    folded(
        lambda e, x: add(e(multiply(e(conv(x)), constant(1, 8, 6, 6))), constant(1, 8, 6, 6)),
        "nn.conv2d multiply add",
    )


def test_constants_are_not_broadcast_to_a_larger_one():
    unchanged(
        FoldScaleShift(),
        lambda e, x: multiply(e(multiply(x, constant(1, 8, 1, 1))), constant(6, 6)),
    )


def test_product_of_two_activations_is_no_anchor():
    unchanged(FoldScaleShift(), lambda e, x: multiply(e(matmul(x, x)), scalar(0.5)))


def test_addition_that_broadcasts_its_operand_stays():
    unchanged(
        FoldScaleShift(), lambda e, x: multiply(e(add(x, constant(4, 3))), scalar(2.0)), (1, 3)
    )


def test_anchor_keeps_its_name():
    x = relax.Var("x", relax.TensorType(SHAPE, "float32"))
    builder = relax.BlockBuilder()
    with builder.function("main", [x]):
        with builder.dataflow():
            y = builder.emit(conv(x), "stem")
            y = builder.emit(multiply(y, constant(1, 8, 1, 1)), "scale")
            result = builder.emit_output(add(y, constant(1, 8, 1, 1)), "shift")
        builder.emit_func_output(result)
    after = normalize(builder.finalize())
    assert [binding.var.name for binding in main_bindings(after["main"])] == ["stem", "shift"]
