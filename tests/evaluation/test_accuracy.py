"""Errors of logits and of probabilities are reported apart, each with its tolerance and the reason of that."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper

from layoutsel.benchmarking.accuracy import compared, judged, worst_by_kind
from layoutsel.core.precision import precision_mode

LOGITS = np.array([[-50.0, 20.0]])


def classifier():
    nodes = [
        helper.make_node("Neg", ["x"], ["scores"]),
        helper.make_node("Softmax", ["scores"], ["p"]),
        helper.make_node("Abs", ["x"], ["features"]),
    ]
    values = {
        name: helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 2])
        for name in ("x", "p", "features")
    }
    graph = helper.make_graph(nodes, "c", [values["x"]], [values["p"], values["features"]])
    return helper.make_model(graph)


def errors_in(mode):
    results = compared(classifier(), [np.ones((1, 2)), np.ones((1, 2)), LOGITS])
    return judged(results, [1e-4, 2e-5, 1e-6], mode)


def test_each_kind_has_its_tolerance_and_reason():
    found = {one.kind: one for one in errors_in(precision_mode("f32"))}
    assert [(one.output, one.kind) for one in found.values()] == [
        ("p", "probabilities"),
        ("features", "output"),
        ("scores", "logits"),
    ]
    assert found["probabilities"].tolerance == pytest.approx(50 * 1e-5)
    assert "times the largest logit, 50" in found["probabilities"].reason
    assert (found["logits"].tolerance, found["logits"].reason) == (1e-5, "the promise of f32")
    assert str(found["output"]) == "output 2.0e-05, above 1.0e-05 (the promise of f32)"


def test_a_budget_holds_as_it_stands():
    found = errors_in(precision_mode("auto", 1e-3))
    assert {one.tolerance for one in found} == {1e-3}
    assert {one.reason for one in found} == {"the budget of auto"}


def test_the_worst_of_a_kind_is_in_terms_of_its_tolerance():
    twice = (*errors_in(precision_mode("f32")), *errors_in(precision_mode("bf16")))
    assert all(one.tolerance < 1e-3 for one in worst_by_kind(twice))
