"""Layer norm and softmax that exporters spell out are recognised."""

from __future__ import annotations

import pytest
from normalizing import check, constant, scalar, unchanged
from tvm import relax
from tvm.relax.op import (
    add,
    divide,
    exp,
    mean,
    multiply,
    power,
    sqrt,
    subtract,
)

from tvm_passes.normalize import (
    CanonicalizeNormalizations,
)


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


def test_normalisation_over_channels_is_one_of_rows():
    def emit(e, x):
        centred = e(subtract(x, e(mean(x, [1], True))))
        variance = e(mean(e(multiply(centred, centred)), [1], True))
        return divide(centred, e(sqrt(e(add(variance, scalar(1e-5))))))

    rows = "permute_dims reshape nn.layer_norm reshape permute_dims"
    check(CanonicalizeNormalizations(), emit, rows)


@pytest.mark.parametrize("keepdims", [True, False])
@pytest.mark.parametrize("square", ["multiply", "power"])
def test_mean_of_squares_less_square_of_the_mean_is_a_variance(square, keepdims):
    def squared(e, x):
        return e(multiply(x, x) if square == "multiply" else relax.op.power(x, scalar(2.0)))

    def emit(e, x):
        moment = e(mean(squared(e, x), [2, 3], keepdims))
        return subtract(moment, squared(e, e(mean(x, [2, 3], keepdims))))

    check(CanonicalizeNormalizations(), emit, "variance")


def test_means_of_two_tensors_are_no_variance():
    def emit(e, x):
        other = e(multiply(x, scalar(2.0)))
        center = e(mean(other, [1], True))
        return subtract(e(mean(e(multiply(x, x)), [1], True)), e(multiply(center, center)))

    unchanged(CanonicalizeNormalizations(), emit)


def test_softmax_is_recognised():
    def emit(e, x):
        y = e(exp(e(subtract(x, e(relax.op.max(x, [-1], True))))))
        return divide(y, e(relax.op.sum(y, [-1], True)))

    check(CanonicalizeNormalizations(), emit, "nn.softmax")
