"""Scores in the network against numpy, in ONNX Runtime and compiled."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnxruntime
import pytest
from exit_networks import CLASSES, Builder
from onnx import TensorProto

import layoutsel
from layoutsel.exits.network import read
from layoutsel.exits.scores import SCORES

TYPES = {
    TensorProto.FLOAT16: np.float16,
    TensorProto.FLOAT: np.float32,
    TensorProto.DOUBLE: np.float64,
}


def network(opset=18, dtype=TensorProto.FLOAT, last=""):
    """Exits on the input alone, and on twice the input: the input is what the exits answer."""
    model = Builder(opset)
    x = model.input("x", (1, CLASSES))
    for name, y in (("e1", model.node("Identity", x)), ("last", model.node("Add", x, x))):
        values = model.node("Cast", y, to=dtype)
        if last:
            values = model.node(last, values, axis=1)
        model.output(model.node("Identity", values, out=name), (1, CLASSES), dtype)
    return read(model.model())


def softmax(logits):
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    return shifted / shifted.sum(axis=1, keepdims=True)


def logits(seed=0, count=20):
    rng = np.random.default_rng(seed)
    rows = rng.standard_normal((count, 1, CLASSES)) * rng.uniform(0.01, 30, (count, 1, 1))
    return rows.astype("float32")


def session(model):
    return onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )


@pytest.mark.parametrize("last", ["", "Softmax", "LogSoftmax"])
@pytest.mark.parametrize("opset", [13, 18])
@pytest.mark.parametrize("kind", SCORES)
def test_onnx_runtime_agrees_with_numpy(kind, opset, last):
    found = network(opset, last=last)
    assert [e.is_probability for e in found.spec.exits] == [last == "Softmax"] * 2
    engine = session(found.scored(kind))
    for x in logits():
        e1, score, label, _, late_score, _ = engine.run(None, {"x": x})
        probabilities = softmax(x.astype("float64"))
        assert score.shape == label.shape == (1,)
        assert score == pytest.approx(SCORES[kind].of(probabilities), abs=1e-5)
        assert label[0] == e1[0].argmax() == x[0].argmax()
        assert late_score == pytest.approx(SCORES[kind].of(softmax(2.0 * x)), abs=1e-5)


@pytest.mark.parametrize("dtype", TYPES)
def test_other_types(dtype):
    found = network(dtype=dtype)
    engine = session(found.scored("margin"))
    for x in logits(count=5):
        e1, score, label, *_ = engine.run(None, {"x": x})
        assert e1.dtype == TYPES[dtype]
        assert score.dtype == np.float32
        assert score == pytest.approx(SCORES["margin"].of(softmax(e1.astype("f8"))), abs=1e-5)
        assert label[0] == e1[0].argmax()


def test_stated_kind_goes_before_the_recognised_one():
    found = network(last="Softmax")
    exits = tuple(replace(exit_, is_probability=False) for exit_ in found.spec.exits)
    stated = read(found.source, replace(found.spec, exits=exits))
    x = logits(count=1)[0]
    score = session(stated.scored()).run(None, {"x": x})[1]
    assert score == pytest.approx(softmax(softmax(x)).max(), abs=1e-6)


@pytest.mark.parametrize("kind", SCORES)
def test_range_and_order(kind):
    probabilities = np.stack(
        [np.full(CLASSES, 1 / CLASSES), softmax(np.eye(1, CLASSES))[0], np.eye(1, CLASSES)[0]]
    )
    scores = SCORES[kind].of(probabilities)
    assert list(scores) == sorted(scores)
    assert scores[0] == pytest.approx(1 / CLASSES if kind == "max_prob" else 0, abs=1e-9)
    assert scores[2] == 1
    # Classes have no order.
    assert SCORES[kind].of(probabilities[:, ::-1]) == pytest.approx(scores)
    assert np.isnan(SCORES[kind].of(np.full((1, CLASSES), np.nan))).all()


def test_tie_of_two_classes():
    x = np.zeros((1, CLASSES), "float32")
    x[0, [3, 7]] = 20
    _, score, label, *_ = session(network().scored("margin")).run(None, {"x": x})
    assert score[0] == 0
    assert label[0] == 3


@pytest.mark.parametrize("kind", SCORES)
def test_saturated_logits(kind):
    x = np.full((1, CLASSES), -1e30, "float32")
    x[0, 4] = 1e30
    _, score, label, *_ = session(network().scored(kind)).run(None, {"x": x})
    assert score[0] == 1
    assert label[0] == 4


@pytest.mark.parametrize("last", ["", "Softmax"])
def test_compiled(last, tmp_path):
    """All kinds in one compiled model each would be slow: the one with most operators."""
    found = network(last=last)
    model = layoutsel.optimize(
        found.scored("margin"), units=("cpu",), cost="roofline", calibrate=False
    )
    for x in logits(count=8):
        _, score, label, *_ = model(x)
        assert score == pytest.approx(SCORES["margin"].of(softmax(x.astype("f8"))), abs=1e-5)
        assert label[0] == x[0].argmax()
    # An exit that is not a number is never sure.
    _, score, *_ = model(np.full((1, CLASSES), np.nan, "float32"))
    assert not score[0] > 0
