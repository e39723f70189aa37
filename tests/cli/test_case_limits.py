"""The reference of a bench runs within limits, in a process of its own."""

from __future__ import annotations

import os
import time

import numpy as np
import onnx
from onnx import helper

from layoutsel.benchmarking import cases
from tests.small_models import model_of

SHAPE = (1, 4)
MODEL = model_of(
    [helper.make_node("Relu", ["x"], ["y"], name="relu")], {"x": SHAPE}, {"y": SHAPE}, {}
)
FEED = {"x": np.array([[-1.0, 0.0, 2.0, -3.0]], np.float32)}


def test_the_reference_computes_in_another_process(monkeypatch):
    (found,) = cases._expected(MODEL, FEED)
    np.testing.assert_array_equal(found, np.maximum(FEED["x"], 0))
    here = os.getpid()
    monkeypatch.setattr(cases, "onnxruntime_reference", lambda *_: [np.array(os.getpid() == here)])
    (found,) = cases._expected(MODEL, FEED)
    assert not found


def test_a_reference_that_hangs_is_ended_with_a_warning(monkeypatch, caplog):
    def hanging(_model: onnx.ModelProto, _feed: object) -> None:
        while True:
            time.sleep(0.01)

    monkeypatch.setattr(cases, "onnxruntime_reference", hanging)
    monkeypatch.setattr(cases, "_REFERENCE_LIMIT_S", 2.0)
    assert cases._expected(MODEL, FEED) == []
    assert "the results are not compared: it took longer than 2 s" in caplog.text
