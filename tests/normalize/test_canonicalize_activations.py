"""Activations that exporters spell out are recognised; near misses are not."""

from __future__ import annotations

import pytest
from normalizing import check, scalar, unchanged
from tvm.relax.op import (
    add,
    clip,
    divide,
    erf,
    exp,
    maximum,
    mean,
    minimum,
    multiply,
    nn,
    power,
    sigmoid,
    tanh,
)

from tvm_passes.normalize import (
    CanonicalizeActivations,
)


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
