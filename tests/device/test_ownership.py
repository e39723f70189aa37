"""Results are the caller's own, whatever a model returns: an input, a weight, a view of either, one tensor twice."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest
import tvm_ffi
from onnx import helper, numpy_helper
from small_models import model_of

import layoutsel
import layoutsel.device
from layoutsel.device.ownership import Ownership
from layoutsel.runtime.arrays import to_tensor

SCALE = np.arange(6, dtype=np.float32)
ROWS = np.arange(12, dtype=np.float32).reshape(3, 4)
RESULTS = {
    "hidden": (1, 16),
    "x": (1, 16),
    "same": (1, 16),
    "flat": (4, 4),
    "again": (1, 16),
    "hidden_flat": (16, 1),
    "scale": (6,),
    "rows": (3, 4),
    "rows_again": (3, 4),
    "rows_flat": (12,),
}
"""Outputs and shapes."""


def passing_through():
    """A hidden layer, and all that a model can return without computing it."""
    nodes = [
        helper.make_node("Sigmoid", ["x"], ["hidden"]),
        helper.make_node("Identity", ["x"], ["same"]),
        helper.make_node("Reshape", ["x", "square"], ["flat"]),
        helper.make_node("Identity", ["hidden"], ["again"]),
        helper.make_node("Reshape", ["hidden", "column"], ["hidden_flat"]),
        helper.make_node("Identity", ["w"], ["rows"]),
        helper.make_node("Identity", ["w"], ["rows_again"]),
        helper.make_node("Reshape", ["w", "line"], ["rows_flat"]),
    ]
    weights = {"scale": SCALE, "w": ROWS}
    model = model_of(nodes, {"x": (1, 16)}, RESULTS, weights)
    for name, shape in {"square": (4, 4), "column": (16, 1), "line": (12,)}.items():
        model.graph.initializer.append(numpy_helper.from_array(np.array(shape), name))
    return model


def twice():
    """One result that is listed twice."""
    nodes = [helper.make_node("Sigmoid", ["x"], ["y"])]
    return model_of(nodes, {"x": (1, 16)}, [("y", (1, 16)), ("y", (1, 16))], {})


Call = Callable[[np.ndarray], Sequence[np.ndarray]]


def callers(model, path) -> dict[str, Call]:
    """The three ways of calling a compiled model; results as arrays on their memory."""
    compiled = layoutsel.optimize(model, cost="roofline", verify_speed=False, units=["cpu"])
    loaded = layoutsel.load(compiled.save(path))
    device = layoutsel.device.load(path)
    return {
        "compiled": compiled,
        "loaded": loaded,
        "DLPack": lambda x: [np.from_dlpack(result) for result in device(x)],
    }


@pytest.fixture(scope="module", params=[passing_through, twice])
def calls(request, tmp_path_factory) -> dict[str, Call]:
    return callers(request.param(), tmp_path_factory.mktemp("model") / "model.so")


def aligned(seed: int) -> np.ndarray:
    """An input that is read in place."""
    tensor = to_tensor(np.random.default_rng(seed).standard_normal((1, 16)).astype(np.float32))
    array = np.from_dlpack(tensor)
    assert np.shares_memory(array, np.from_dlpack(to_tensor(array)))
    return array


@pytest.mark.parametrize("way", ["compiled", "loaded", "DLPack"])
class TestEveryWay:
    def test_results_share_no_memory(self, calls, way):
        x = aligned(0)
        results = calls[way](x)
        for index, result in enumerate(results):
            assert not np.shares_memory(result, x)
            assert not any(np.shares_memory(result, other) for other in results[:index])

    def test_writing_into_results_changes_nothing(self, calls, way):
        x = aligned(1)
        before = x.copy()
        wanted = [result.copy() for result in calls[way](x)]
        for index in range(len(wanted)):
            results = calls[way](x)
            results[index][...] = 77
            others = [i for i in range(len(wanted)) if i != index]
            for other in others:
                np.testing.assert_array_equal(results[other], wanted[other])
            np.testing.assert_array_equal(x, before)
        for result, want in zip(calls[way](x), wanted, strict=True):
            np.testing.assert_array_equal(result, want)

    def test_writing_into_an_input_changes_no_result(self, calls, way):
        x = aligned(2)
        results = calls[way](x)
        wanted = [result.copy() for result in results]
        x[...] = 0
        calls[way](x)
        for result, want in zip(results, wanted, strict=True):
            np.testing.assert_array_equal(result, want)


def tensors(*lengths: int) -> list[tvm_ffi.Tensor]:
    return [tvm_ffi.from_dlpack(np.zeros(length, np.float32)) for length in lengths]


def test_nothing_else_is_copied():
    weights, inputs, results = tensors(4, 8, 0), tensors(3), tensors(5, 0, 7)
    owned = Ownership(weights).own(inputs, results)
    assert all(one.same_as(other) for one, other in zip(owned, results, strict=True))


def test_parts_of_weights_are_copied():
    """Weights that are parts of one array, and results within or across them."""
    array = np.arange(64, dtype=np.float32)
    ownership = Ownership([tvm_ffi.from_dlpack(array[part]) for part in PARTS])
    for start, end, is_copied in (
        (0, 8, False),
        (7, 9, True),
        (20, 24, True),
        (30, 40, True),
        (50, 60, False),
    ):
        result = tvm_ffi.from_dlpack(array[start:end])
        (owned,) = ownership.own([], [result])
        assert owned.same_as(result) != is_copied
        np.testing.assert_array_equal(np.from_dlpack(owned), array[start:end])


PARTS = (slice(8, 40), slice(12, 16), slice(60, 64))
