"""Indices at run time: negative ones count from the end; others wrap around in the code, where no check refused them."""

from __future__ import annotations

import numpy as np
import pytest
from reference import TOLERANCE, relative_error, run_onnx, run_relax

from layoutsel.model import import_model
from tests.model.graphs import FLOAT, INT64, Input, single

DATA = np.arange(24, dtype="float32").reshape(4, 6)

CASES = {
    "Gather": ({"axis": 1}, lambda i: i, ()),
    "GatherElements": ({"axis": 1}, lambda i: np.stack([i] * 4), ()),
    "GatherND": ({}, lambda i: np.stack([i * 0 + 1, i], -1), ()),
    "ScatterElements": ({"axis": 1}, lambda i: np.stack([i, i]), (-np.ones((2, 3), "float32"),)),
    "ScatterND": ({}, lambda i: np.stack([i * 0 + 1, i], -1), (-np.ones(3, "float32"),)),
}


def model_of(op, indices):
    attributes, _, updates = CASES[op]
    operands = [Input(*DATA.shape), Input(*indices.shape, elem=INT64), *updates]
    return single(op, operands, attributes, elem=FLOAT)


@pytest.mark.parametrize("op", CASES)
def test_indices_inside(op):
    indices = CASES[op][1](np.asarray([-6, 5, -2]))
    model = model_of(op, indices)
    want = run_onnx(model, {"i0": DATA, "i1": indices})[0]
    got = run_relax(import_model(model).module, [DATA, indices])[0]
    assert relative_error(got, want) <= TOLERANCE


@pytest.mark.parametrize("op", CASES)
@pytest.mark.parametrize("outside", [6, 9, -7, 1 << 40])
def test_indices_outside_wrap_around(op, outside):
    """ONNX Runtime stops here: the same model with the index modulo the size says what is right."""
    given, wrapped = (CASES[op][1](np.asarray([0, i, 4])) for i in (outside, outside % 6))
    model = model_of(op, given)
    want = run_onnx(model, {"i0": DATA, "i1": wrapped})[0]
    got = run_relax(import_model(model).module, [DATA, given])[0]
    assert relative_error(got, want) <= TOLERANCE


@pytest.mark.parametrize("op", CASES)
def test_constant_indices(op):
    attributes, made, updates = CASES[op]
    model = single(
        op, [Input(*DATA.shape), made(np.asarray([-6, 5, -2])), *updates], attributes, elem=FLOAT
    )
    want = run_onnx(model, {"i0": DATA})[0]
    got = run_relax(import_model(model).module, [DATA])[0]
    assert relative_error(got, want) <= TOLERANCE
