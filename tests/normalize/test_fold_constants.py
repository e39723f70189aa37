"""Operators of constants are evaluated in numpy, as TVM would."""

from __future__ import annotations

import pytest
from normalizing import check, constant, scalar, unchanged
from tvm import relax
from tvm.relax.op import (
    add,
    broadcast_to,
    concat,
    divide,
    erf,
    expand_dims,
    matmul,
    mean,
    multiply,
    permute_dims,
    reshape,
    split,
    sqrt,
    squeeze,
)

from tvm_passes.ir import main_bindings
from tvm_passes.normalize import (
    FoldConstants,
)


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
