"""Operators that change nothing go; those that shape the result stay."""

from __future__ import annotations

import pytest
from normalizing import SHAPE, check, scalar, unchanged
from tvm import relax
from tvm.relax.op import (
    add,
    broadcast_to,
    concat,
    exp,
    mean,
    multiply,
    nn,
    permute_dims,
    reshape,
)

from tvm_passes.normalize import (
    RemoveIdentities,
)


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
