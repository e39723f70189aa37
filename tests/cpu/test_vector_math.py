"""Elementary functions against float64: on dense grids, at the ends of their ranges, in whole vectors and tails."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from tvm import relax

from tests.cpu.support import TARGET, model, run
from tvm_passes.cpu.host import vector_unit
from tvm_passes.decision import Decision

nn = relax.op.nn

LANES = vector_unit(TARGET).lanes
WHOLE = np.linspace(-12, 12, 6001 * LANES, dtype=np.float32).reshape(1, -1)
FAR = np.float32([[0.0, 1e-30, -1e-30, 60.0, -60.0, 87.5, -87.5, 150.0, -150.0, 1e30, -1e30]])

erf = np.vectorize(math.erf, otypes=[np.float64])


def sigmoid(x: np.ndarray) -> np.ndarray:
    return np.where(x >= 0, 1 / (1 + np.exp(-np.abs(x))), 1 - 1 / (1 + np.exp(-np.abs(x))))


def gelu_tanh(x: np.ndarray) -> np.ndarray:
    return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


Function = Callable[[np.ndarray], np.ndarray]

# operator, what it computes, largest absolute error, as a share of |x| beyond 1
FUNCTIONS: dict[str, tuple[Callable[[relax.Expr], relax.Expr], Function, float]] = {
    "erf": (relax.op.erf, erf, 3e-7),
    "gelu": (nn.gelu, lambda x: 0.5 * x * (1 + erf(x / math.sqrt(2))), 3e-7),
    "gelu_tanh": (nn.gelu_tanh, gelu_tanh, 3e-7),
    "sigmoid": (relax.op.sigmoid, sigmoid, 3e-7),
    "silu": (nn.silu, lambda x: x * sigmoid(x), 3e-7),
    "tanh": (relax.op.tanh, np.tanh, 3e-7),
}


@pytest.mark.parametrize("place", ["whole vectors", "far", "scalars"])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_error(name, place):
    operator, exact, most = FUNCTIONS[name]
    values = {"whole vectors": WHOLE, "far": FAR, "scalars": WHOLE[:, ::997].copy()}[place]
    got = run(model(operator, values.shape), [values], Decision(unit="cpu"))
    wide = values.astype(np.float64)
    error = np.abs(got - exact(wide)) / np.maximum(np.abs(wide), 1)
    assert error.max() < most


def test_erf_of_small_numbers_has_a_small_relative_error():
    values = np.geomspace(1e-20, 1, 4 * LANES, dtype=np.float32).reshape(1, -1)
    got = run(model(relax.op.erf, values.shape), [values], Decision(unit="cpu"))
    exact = erf(values.astype(np.float64))
    assert (np.abs(got - exact) / exact).max() < 1e-6


@pytest.mark.parametrize("name", FUNCTIONS)
def test_not_a_number_stays_so(name):
    values = np.full((1, LANES), np.nan, np.float32)
    got = run(model(FUNCTIONS[name][0], values.shape), [values], Decision(unit="cpu"))
    assert np.isnan(got).all()


@pytest.mark.parametrize("name", ["erf", "sigmoid", "tanh"])
def test_infinity_has_the_limit(name):
    values = np.full((1, LANES), np.inf, np.float32)
    values[:, 1::2] = -np.inf
    got = run(model(FUNCTIONS[name][0], values.shape), [values], Decision(unit="cpu"))
    assert np.allclose(got, FUNCTIONS[name][1](values.astype(np.float64)), atol=1e-37, rtol=1e-7)
