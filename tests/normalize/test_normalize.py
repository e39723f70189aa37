"""Each normalisation pass: before and expected, unchanged otherwise, equal values, idempotent."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest
import tvm
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import TOLERANCE, relative_error, run_relax
from tvm import relax
from tvm.relax.op import (
    add,
    broadcast_to,
    clip,
    concat,
    divide,
    erf,
    exp,
    expand_dims,
    matmul,
    maximum,
    mean,
    minimum,
    multiply,
    nn,
    permute_dims,
    power,
    reshape,
    sigmoid,
    split,
    sqrt,
    squeeze,
    subtract,
    tanh,
)

from tvm_passes.ir import main_bindings, op_name
from tvm_passes.normalize import (
    CanonicalizeActivations,
    CanonicalizeNormalizations,
    DecomposeBatchNorm,
    FoldConstants,
    FoldPadding,
    FoldScaleShift,
    RemoveIdentities,
    normalize,
)

SHAPE = (1, 8, 6, 6)
RNG = np.random.default_rng(0)


def constant(*shape, low=-1.0, high=1.0, dtype="float32"):
    return relax.const(RNG.uniform(low, high, shape).astype(dtype))


def scalar(value):
    return relax.const(value, "float32")


def module_of(emit: Callable, shape=SHAPE, dtype="float32"):
    """A module whose `main` binds every call that `emit` makes through the given function."""
    x = relax.Var("x", relax.TensorType(shape, dtype))
    builder = relax.BlockBuilder()
    with builder.function("main", [x]):
        with builder.dataflow():
            result = builder.emit_output(emit(builder.emit, x))
        builder.emit_func_output(result)
    return builder.finalize()


def cleaned(rewrite, module):
    return relax.transform.DeadCodeElimination(["main"])(
        relax.transform.CanonicalizeBindings()(rewrite(module))
    )


def operators(module):
    return Counter(op_name(binding.value) or "alias" for binding in main_bindings(module["main"]))


def check(rewrite, emit, expected, shape=SHAPE):
    """`rewrite` leaves the `expected` operators, the same values, and nothing more to do."""
    before = module_of(emit, shape)
    original = before.script()
    after = cleaned(rewrite, before)
    assert before.script() == original
    assert operators(after) == Counter(expected.split())
    again = cleaned(rewrite, after)
    assert operators(again) == operators(after)
    value = np.random.default_rng(1).standard_normal(shape).astype("float32")
    for got, want in zip(run_relax(after, [value]), run_relax(before, [value]), strict=True):
        assert relative_error(got, want) <= TOLERANCE
    return after


def unchanged(rewrite, emit, shape=SHAPE):
    module = module_of(emit, shape)
    tvm.ir.assert_structural_equal(rewrite(module), module)


def conv(x, channels=8, out=8, kernel=3, **options):
    weight = constant(out, channels // options.get("groups", 1), kernel, kernel)
    return nn.conv2d(x, weight, padding=options.pop("padding", kernel // 2), **options)


def batch_norm(emit, x, channels=8, axis=1):
    parameters = [constant(channels) for _ in range(3)] + [constant(channels, low=0.5)]
    return emit(relax.TupleGetItem(emit(nn.batch_norm(x, *parameters, axis, training=False)), 0))


# FoldConstants


def test_constants_are_folded_through_variables():
    def emit(e, x):
        transposed = e(permute_dims(constant(4, 6), [1, 0]))
        return matmul(x, e(multiply(transposed, scalar(2.0))))

    check(FoldConstants(), emit, "matmul", (3, 6))


@pytest.mark.parametrize(
    "make",
    [
        lambda e: e(reshape(constant(4, 6), (24,))),
        lambda e: e(permute_dims(constant(2, 3, 4), [2, 0, 1])),
        lambda e: e(expand_dims(constant(4, 6), [0, 2])),
        lambda e: e(squeeze(constant(1, 4, 1))),
        lambda e: e(concat([constant(2, 3), constant(1, 3)], 0)),
        lambda e: e(relax.op.take(constant(5, 3), relax.const([3, 1]), axis=0)),
        lambda e: e(relax.op.strided_slice(constant(5, 6), [0, 1], [1, 0], [5, 6], [2, 3])),
        lambda e: e(mean(constant(5, 6), [0], keepdims=True)),
        lambda e: e(relax.TupleGetItem(e(split(constant(6, 2), [2, 5])), 1)),
        lambda e: e(divide(constant(3), e(sqrt(constant(3, low=0.5))))),
        lambda e: e(
            relax.op.where(e(relax.op.greater(constant(4), scalar(0))), constant(4), scalar(1))
        ),
        lambda e: e(broadcast_to(constant(1, 3), (4, 3))),
        lambda e: e(erf(constant(7))),
        lambda e: e(relax.op.full((2, 3), scalar(1.5))),
        lambda e: e(relax.op.tile(constant(2), (3,))),
    ],
)
def test_numpy_evaluates_as_tvm_does(make):
    def emit(e, x):
        return e(add(e(mean(e(make(e)))), e(mean(x))))

    after = check(FoldConstants(), emit, "mean add", (2, 2))
    assert len(main_bindings(after["main"])) == 2


def test_large_broadcast_is_not_materialised():
    unchanged(
        FoldConstants(),
        lambda e, x: add(x, e(broadcast_to(scalar(1.0), (1024, 1024)))),
        (1024, 1024),
    )


def test_matrix_of_odd_size_is_transposed_in_strips():
    check(
        FoldConstants(),
        lambda e, x: matmul(x, e(permute_dims(constant(300, 70), [1, 0]))),
        "matmul",
        (2, 70),
    )


# DecomposeBatchNorm


def test_batch_norm_becomes_scale_and_shift():
    check(DecomposeBatchNorm(), batch_norm, "multiply add")


def test_batch_norm_along_the_last_axis():
    check(DecomposeBatchNorm(), lambda e, x: batch_norm(e, x, 6, 3), "multiply add")


def test_batch_norm_with_activations_as_parameters_stays():
    def emit(e, x):
        parameter = e(mean(x, [0, 2, 3]))
        bundle = e(nn.batch_norm(x, parameter, parameter, parameter, parameter, 1, training=False))
        return relax.TupleGetItem(bundle, 0)

    unchanged(DecomposeBatchNorm(), emit)


# FoldScaleShift


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


# RemoveIdentities


@pytest.mark.parametrize(
    ("emit", "expected"),
    [
        (
            lambda e, x: e(permute_dims(e(permute_dims(e(exp(x)), [0, 2, 3, 1])), [0, 3, 1, 2])),
            "exp",
        ),
        (lambda e, x: permute_dims(e(permute_dims(x, [0, 2, 3, 1])), [0, 2, 3, 1]), "permute_dims"),
        (lambda e, x: reshape(e(reshape(x, (8, 36))), (36, 8)), "reshape"),
        (lambda e, x: exp(e(reshape(e(reshape(x, (8, 36))), SHAPE))), "exp"),
        (lambda e, x: exp(e(relax.op.astype(x, "float32"))), "exp"),
        (lambda e, x: exp(e(relax.TupleGetItem(e(nn.dropout(x)), 0))), "exp"),
        (lambda e, x: exp(e(relax.op.strided_slice(x, [1], [0], [8], [1]))), "exp"),
        (lambda e, x: exp(e(nn.pad(x, [0] * 8))), "exp"),
        (lambda e, x: exp(e(concat([x], 1))), "exp"),
        (lambda e, x: exp(e(multiply(scalar(1.0), e(add(x, scalar(0.0)))))), "exp"),
        (lambda e, x: add(x, e(broadcast_to(e(mean(x, [2, 3], True)), SHAPE))), "mean add"),
    ],
)
def test_identity_is_removed(emit, expected):
    check(RemoveIdentities(), emit, expected)


def test_broadcast_that_shapes_the_result_stays():
    unchanged(
        RemoveIdentities(),
        lambda e, x: add(e(broadcast_to(e(mean(x, [0], True)), (5, 3))), scalar(1.0)),
        (4, 3),
    )


def test_real_movement_stays():
    unchanged(RemoveIdentities(), lambda e, x: reshape(e(permute_dims(x, [0, 2, 3, 1])), (6, 48)))


# CanonicalizeActivations


def gelu_tanh(e, x, cube):
    inner = e(multiply(e(add(x, e(multiply(cube, scalar(0.044715))))), scalar(0.7978845608)))
    return multiply(e(multiply(x, scalar(0.5))), e(add(e(tanh(inner)), scalar(1.0))))


def relu6_shifted(e, x):
    return e(clip(e(add(x, scalar(3.0))), 0.0, 6.0))


HARD = "multiply add clip"
ACTIVATIONS = {
    "silu": (lambda e, x: multiply(x, e(sigmoid(x))), "nn.silu"),
    "silu reversed": (lambda e, x: multiply(e(sigmoid(x)), x), "nn.silu"),
    "gelu, half first": (
        lambda e, x: multiply(
            e(multiply(scalar(0.5), x)),
            e(add(e(erf(e(divide(x, scalar(1.4142135))))), scalar(1.0))),
        ),
        "nn.gelu",
    ),
    "gelu, half last": (
        lambda e, x: multiply(
            e(multiply(x, e(add(scalar(1.0), e(erf(e(multiply(x, scalar(0.70710678))))))))),
            scalar(0.5),
        ),
        "nn.gelu",
    ),
    "gelu, half in the gate": (
        lambda e, x: multiply(
            x,
            e(add(e(multiply(e(erf(e(divide(x, scalar(1.4142135))))), scalar(0.5))), scalar(0.5))),
        ),
        "nn.gelu",
    ),
    "tanh gelu, power": (lambda e, x: gelu_tanh(e, x, e(power(x, scalar(3.0)))), "nn.gelu_tanh"),
    "tanh gelu, products": (
        lambda e, x: gelu_tanh(e, x, e(multiply(e(multiply(x, x)), x))),
        "nn.gelu_tanh",
    ),
    "hard sigmoid": (lambda e, x: divide(relu6_shifted(e, x), scalar(6.0)), HARD),
    "hard sigmoid, minimum": (
        lambda e, x: multiply(
            e(minimum(e(nn.relu(e(add(x, scalar(3.0))))), scalar(6.0))), scalar(1 / 6)
        ),
        HARD,
    ),
    "hard swish": (
        lambda e, x: multiply(x, e(divide(relu6_shifted(e, x), scalar(6.0)))),
        HARD + " multiply",
    ),
    "hard swish, sixth last": (
        lambda e, x: divide(e(multiply(x, relu6_shifted(e, x))), scalar(6.0)),
        HARD + " multiply",
    ),
    "clip": (lambda e, x: minimum(e(maximum(x, scalar(-1.0))), scalar(2.0)), "clip"),
    "clip reversed": (lambda e, x: maximum(scalar(-1.0), e(minimum(x, scalar(2.0)))), "clip"),
    "relu6": (lambda e, x: nn.relu6(x), "clip"),
}


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activation_is_recognised(name):
    emit, expected = ACTIVATIONS[name]
    check(CanonicalizeActivations(), emit, expected)


def test_activation_of_a_product_is_recognised():
    def emit(e, x):
        y = e(multiply(x, e(exp(x))))
        return multiply(y, e(sigmoid(y)))

    check(CanonicalizeActivations(), emit, "exp multiply nn.silu")


@pytest.mark.parametrize(
    "emit",
    [
        lambda e, x: multiply(x, e(sigmoid(e(multiply(x, scalar(1.702)))))),
        lambda e, x: multiply(x, e(add(e(erf(x)), scalar(1.0)))),
        lambda e, x: multiply(x, e(sigmoid(e(exp(x))))),
        lambda e, x: minimum(e(maximum(x, scalar(2.0))), scalar(1.0)),
        lambda e, x: divide(e(clip(e(add(x, scalar(3.0))), 0.0, 6.0)), scalar(5.0)),
        lambda e, x: multiply(x, e(divide(scalar(1.0), x))),
        lambda e, x: multiply(e(mean(x, [2, 3], True)), e(sigmoid(x))),
    ],
)
def test_near_misses_stay(emit):
    unchanged(CanonicalizeActivations(), emit)


# CanonicalizeNormalizations


def layer_norm(e, x, square, *, rsqrt=False, affine=True, twice=False):
    centred = e(subtract(x, e(mean(x, [-1], True))))
    other = e(subtract(x, e(mean(x, [-1], True)))) if twice else centred
    variance = e(add(e(mean(square(e, other), [-1], True)), scalar(1e-5)))
    y = (
        e(multiply(e(relax.op.rsqrt(variance)), centred))
        if rsqrt
        else e(divide(centred, e(sqrt(variance))))
    )
    return e(add(e(multiply(y, constant(6))), constant(6))) if affine else y


SQUARES = {
    "power": lambda e, y: e(power(y, scalar(2.0))),
    "product": lambda e, y: e(multiply(y, y)),
    "square": lambda e, y: e(relax.op.square(y)),
}


@pytest.mark.parametrize("rsqrt", [False, True])
@pytest.mark.parametrize("twice", [False, True])
@pytest.mark.parametrize("square", SQUARES)
def test_layer_norm_is_recognised(square, twice, rsqrt):
    check(
        CanonicalizeNormalizations(),
        lambda e, x: layer_norm(e, x, SQUARES[square], rsqrt=rsqrt, twice=twice),
        "nn.layer_norm",
    )


def test_layer_norm_without_parameters():
    check(
        CanonicalizeNormalizations(),
        lambda e, x: layer_norm(e, x, SQUARES["power"], affine=False),
        "nn.layer_norm",
    )


def test_normalisation_over_channels_stays():
    def emit(e, x):
        centred = e(subtract(x, e(mean(x, [1], True))))
        variance = e(mean(e(multiply(centred, centred)), [1], True))
        return divide(centred, e(sqrt(e(add(variance, scalar(1e-5))))))

    unchanged(CanonicalizeNormalizations(), emit)


def test_softmax_is_recognised():
    def emit(e, x):
        y = e(exp(e(subtract(x, e(relax.op.max(x, [-1], True))))))
        return divide(y, e(relax.op.sum(y, [-1], True)))

    check(CanonicalizeNormalizations(), emit, "nn.softmax")


# FoldPadding

SPATIAL = [0, 0, 0, 0, 1, 2, 0, 1]


def test_padding_goes_into_the_convolution():
    check(FoldPadding(), lambda e, x: conv(e(nn.pad(x, SPATIAL))), "nn.conv2d")


def test_padding_goes_into_average_pooling():
    check(
        FoldPadding(),
        lambda e, x: nn.avg_pool2d(e(nn.pad(x, SPATIAL)), (3, 3), (2, 2)),
        "nn.avg_pool2d",
    )


@pytest.mark.parametrize(
    "emit",
    [
        lambda e, x: nn.max_pool2d(e(nn.pad(x, SPATIAL)), (3, 3)),
        lambda e, x: nn.avg_pool2d(e(nn.pad(x, SPATIAL)), (3, 3), padding=(1, 1)),
        lambda e, x: nn.conv2d(e(nn.pad(x, SPATIAL, "constant", 1.0)), constant(8, 8, 3, 3)),
        lambda e, x: nn.conv2d(e(nn.pad(x, SPATIAL, "reflect")), constant(8, 8, 3, 3)),
        lambda e, x: nn.conv2d(e(nn.pad(x, [0, 0, 0, 1, 0, 0, 0, 0])), constant(8, 9, 3, 3)),
    ],
)
def test_other_padding_stays(emit):
    unchanged(FoldPadding(), emit)


# The pipeline


def test_unknown_operators_pass_through():
    def emit(e, x):
        y = e(relax.op.sort(e(relax.op.cumsum(x, 1))))
        return relax.op.image.resize2d(y, (12, 12))

    module = module_of(emit)
    assert operators(normalize(module)) == operators(module)


def test_symbolic_shapes_and_control_flow_pass_through():
    size = tvm.tirx.Var("n", "int64")
    x = relax.Var("x", relax.TensorType((size, 8), "float32"))
    chosen = relax.Var("chosen", relax.TensorType((), "bool"))
    builder = relax.BlockBuilder()
    with builder.function("main", [x, chosen]):
        y = builder.emit(reshape(builder.emit(add(x, scalar(0.0))), (size, 2, 4)))
        y = builder.emit(nn.relu(builder.emit(reshape(y, (size, 8)))))
        branches = [relax.SeqExpr([], value) for value in (x, y)]
        builder.emit_func_output(builder.emit(relax.If(chosen, *branches)))
    module = normalize(builder.finalize())
    relax.analysis.well_formed(module)
    assert "nn.relu" in module.script()


@pytest.mark.parametrize("dtype", ["float16", "int32", "bfloat16"])
def test_other_types_pass_through(dtype):
    module = module_of(
        lambda e, x: multiply(e(add(x, relax.const(2, dtype))), relax.const(3, dtype)),
        (2, 3),
        dtype,
    )
    assert operators(normalize(module)) == Counter(["add", "multiply"])


STEPS = {
    "scale": lambda e, x: e(multiply(x, constant(1, 8, 1, 1))),
    "shift": lambda e, x: e(subtract(x, constant(8, 1, 1))),
    "norm": batch_norm,
    "conv": lambda e, x: e(multiply(e(conv(x)), scalar(0.2))),
    "depthwise": lambda e, x: e(conv(x, groups=8)),
    "relu": lambda e, x: e(nn.relu(x)),
    "silu": lambda e, x: e(multiply(x, e(sigmoid(x)))),
    "transpose": lambda e, x: e(permute_dims(x, [0, 1, 3, 2])),
    "reshape": lambda e, x: e(reshape(e(reshape(x, (8, 36))), SHAPE)),
    "residual": lambda e, x: e(add(x, e(nn.relu(e(conv(x)))))),
    "pad": lambda e, x: e(conv(e(nn.pad(x, [0, 0, 0, 0, 1, 1, 1, 1])), padding=0)),
    "divide": lambda e, x: e(divide(x, scalar(1.5))),
}


@settings(max_examples=25, deadline=None)
@given(st.lists(st.sampled_from(sorted(STEPS)), min_size=1, max_size=7))
def test_any_chain_keeps_its_values(steps):
    def emit(e, x):
        for step in steps:
            x = STEPS[step](e, x)
        return x

    before = module_of(emit)
    after = normalize(before)
    value = np.random.default_rng(2).standard_normal(SHAPE).astype("float32")
    got, want = run_relax(after, [value])[0], run_relax(before, [value])[0]
    assert relative_error(got, want) <= TOLERANCE
    assert not {"nn.pad", "nn.batch_norm"} & set(operators(after))
    tvm.ir.assert_structural_equal(normalize(after), after)
