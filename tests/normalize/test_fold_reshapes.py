"""Reshapes around an element-wise constant go, if the constant can be reshaped instead."""

from __future__ import annotations

import numpy as np
import pytest
from normalizing import check, constant, unchanged
from tvm import relax
from tvm.relax.op import add, exp, multiply, reshape, subtract

from tvm_passes.normalize import FoldReshapes

SCORES = (8, 3, 5, 5)
APART = (1, 8, 3, 5, 5)


def around(e, x, operator, *, apart=APART, swapped=False, shape=(1, 8, 1, 5, 5)):
    """`operator` between reshapes, with a constant of `shape`."""
    lv = e(reshape(x, apart))
    other = constant(*shape)
    lv1 = e(operator(other, lv) if swapped else operator(lv, other))
    return reshape(lv1, SCORES)


@pytest.mark.parametrize("operator", [add, subtract, multiply])
@pytest.mark.parametrize("swapped", [False, True])
@pytest.mark.parametrize("shape", [(1, 8, 1, 5, 5), (3, 1, 1), (5,), APART])
def test_a_constant_is_reshaped_instead(operator, swapped, shape):
    check(
        FoldReshapes(),
        lambda e, x: exp(e(around(e, x, operator, swapped=swapped, shape=shape))),
        f"{operator.__name__} exp",
        SCORES,
    )


def test_windows_of_several_images():
    check(
        FoldReshapes(),
        lambda e, x: exp(e(around(e, x, add, apart=(2, 4, 3, 5, 5), shape=(1, 1, 3, 5, 5)))),
        "add exp",
        SCORES,
    )


def test_a_constant_that_would_grow_stays():
    unchanged(
        FoldReshapes(),
        lambda e, x: around(e, x, add, apart=(2, 4, 3, 5, 5), shape=(1, 4, 1, 5, 5)),
        SCORES,
    )


def test_a_sum_that_is_read_elsewhere_stays():
    def emit(e, x):
        total = e(add(e(reshape(x, APART)), relax.const(np.ones((1, 8, 1, 5, 5), "float32"))))
        return add(e(reshape(total, SCORES)), e(reshape(e(exp(total)), SCORES)))

    unchanged(FoldReshapes(), emit, SCORES)


def test_another_final_shape_stays():
    unchanged(
        FoldReshapes(),
        lambda e, x: reshape(e(add(e(reshape(x, APART)), constant(5))), (24, 25)),
        SCORES,
    )
