"""The choice among an engine's settings: the fastest that is right, with reasons against the rest."""

from __future__ import annotations

import time

import numpy as np
import pytest

from layoutsel.benchmarking.case_data import read_case_data, write_case_data
from layoutsel.benchmarking.engine import Engine, EngineJob
from layoutsel.benchmarking.variants import Variant, best_of
from tvm_passes.errors import LayoutselError

X = np.arange(6, dtype=np.float32)


def loaded(_job, inputs, settings):
    """A function that doubles its input, after a sleep, or fails as `settings` say."""
    if settings.get("fails"):
        raise RuntimeError("no such option\nmore lines")

    def run():
        time.sleep(settings["sleep_s"])
        return [settings.get("factor", 2) * inputs["x"]]

    return run


@pytest.fixture
def job(tmp_path):
    data = tmp_path / "data.npz"
    write_case_data(data, {"x": X}, [2 * X])
    return EngineJob(
        model=tmp_path / "model.onnx",
        data=data,
        threads=1,
        precision="f32",
        workdir=tmp_path,
        options={},
    )


def engine(**variants):
    made = [Variant(name=name, settings=settings) for name, settings in variants.items()]
    return best_of("toy", made, loaded)


def test_data_of_a_case_stay_the_same(tmp_path):
    results = [np.full(3, index, np.float32) for index in range(12)]
    write_case_data(tmp_path / "data.npz", {"b": X, "a": X + 1}, results)
    inputs, expected = read_case_data(tmp_path / "data.npz")
    assert set(inputs) == {"a", "b"}
    np.testing.assert_array_equal(inputs["a"], X + 1)
    np.testing.assert_array_equal(expected, results)


def test_the_fastest_right_variant_is_chosen(job):
    toy = engine(
        slow={"sleep_s": 0.02},
        fast={"sleep_s": 0.002},
        wrong={"sleep_s": 0.0, "factor": 3},
        broken={"fails": True},
    )
    toy.prepare(job, lambda _text: None)
    np.testing.assert_array_equal(toy.load(job, {"x": X})()[0], 2 * X)
    text = toy.settings(job)
    assert text.startswith("fast (")
    assert "slow (2" in text
    assert "wrong (left out: wrong results: relative L2 error 5.0e-01)" in text
    assert "broken (left out: no such option)" in text


def test_an_engine_without_a_right_variant_says_why(job):
    toy = engine(broken={"fails": True}, wrong={"sleep_s": 0.0, "factor": 7})
    with pytest.raises(LayoutselError, match=r"toy cannot run the model: broken: no such option"):
        toy.prepare(job, lambda _text: None)


@pytest.mark.parametrize(
    ("requires", "text"),
    [
        (("numpy",), None),
        (("numpy", "no_such_a"), "no_such_a is not installed; pip install 'layoutsel[peers]'"),
        (
            ("no_such_a", "no_such_b"),
            "no_such_a and no_such_b are not installed; pip install 'layoutsel[peers]'",
        ),
    ],
)
def test_a_missing_module_is_one_line(requires, text):
    assert Engine(name="toy", load=loaded, requires=requires, extra="peers").unavailable() == text
