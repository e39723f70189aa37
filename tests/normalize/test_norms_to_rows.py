"""Normalisations over several axes become layer normalisations of rows, of equal values."""

from __future__ import annotations

import numpy as np
import pytest
from normalizing import cleaned, constant, module_of, operators, unchanged
from tvm import relax
from tvm.relax.op import nn

from tests.reference import run_relax
from tvm_passes.normalize import NormsToRows

SHAPE = (2, 8, 3, 5)
EPSILON = 1e-5


def standardized(x, axes):
    away = x - x.mean(axis=axes, keepdims=True)
    return away / np.sqrt((away**2).mean(axis=axes, keepdims=True) + EPSILON)


def training(e, x, gamma, beta):
    zeros, ones = (relax.const(np.full(8, n, "float32")) for n in (0, 1))
    both = e(nn.batch_norm(x, gamma, beta, zeros, ones, 1, EPSILON, training=True))
    return relax.TupleGetItem(both, 0)


CASES = {
    "instance": (
        lambda _e, x, g, b: nn.instance_norm(x, g, b, 1, [2, 3], EPSILON),
        lambda x: standardized(x, (2, 3)),
    ),
    "group": (
        lambda _e, x, g, b: nn.group_norm(x, g, b, 4, 1, [2, 3], EPSILON),
        lambda x: standardized(x.reshape(2, 4, 2, 3, 5), (2, 3, 4)).reshape(SHAPE),
    ),
    "batch, training": (training, lambda x: standardized(x, (0, 2, 3))),
}


@pytest.mark.parametrize("name", CASES)
def test_channels_are_scaled_after_rows_are_normalised(name):
    build, reference = CASES[name]
    gamma, beta = constant(8), constant(8)
    module = cleaned(NormsToRows(), module_of(lambda e, x: build(e, x, gamma, beta), SHAPE))
    assert operators(module)["nn.layer_norm"] == 1
    assert not {"nn.instance_norm", "nn.group_norm", "nn.batch_norm"} & set(operators(module))
    value = np.random.default_rng(1).standard_normal(SHAPE).astype("float32")
    (got,) = run_relax(module, [value])
    scale, shift = (array.value.numpy().reshape(1, 8, 1, 1) for array in (gamma, beta))
    want = reference(value.astype("float64")) * scale + shift
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)


def test_layer_norm_over_two_axes():
    gamma, beta = constant(3, 5), constant(3, 5)
    before = module_of(lambda _e, x: nn.layer_norm(x, gamma, beta, [-2, -1], EPSILON), SHAPE)
    module = cleaned(NormsToRows(), before)
    assert operators(module) == {"reshape": 2, "nn.layer_norm": 1}
    value = np.random.default_rng(1).standard_normal(SHAPE).astype("float32")
    (got,) = run_relax(module, [value])
    want = standardized(value.astype("float64"), (2, 3))
    want = want * gamma.value.numpy() + beta.value.numpy()
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)


def test_rows_stay():
    gamma, beta = constant(6), constant(6)
    unchanged(NormsToRows(), lambda _e, x: nn.layer_norm(x, gamma, beta, [-1], EPSILON))
