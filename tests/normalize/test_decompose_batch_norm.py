"""Batch normalisation becomes a scale and a shift."""

from __future__ import annotations

from normalizing import batch_norm, check, unchanged
from tvm import relax
from tvm.relax.op import (
    mean,
    nn,
)

from tvm_passes.normalize import (
    DecomposeBatchNorm,
)


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
