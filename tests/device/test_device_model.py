"""A compiled model without numpy's help: what it takes, where from, and what it refuses."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import layoutsel.device
from layoutsel.compile.compiling import compiled
from layoutsel.compile.make_plan import best_plan, priced_problem
from layoutsel.compile.offers import Offers
from layoutsel.compile.session import Session
from layoutsel.device.artifact_header import ArtifactError
from layoutsel.errors import InputError


@pytest.fixture(scope="module")
def artifact(tmp_path_factory):
    """y = x @ w, and n + n."""
    folder = tmp_path_factory.mktemp("model")
    w = np.random.default_rng(0).standard_normal((16, 8)).astype("float32")
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["y"]),
        helper.make_node("Add", ["n", "n"], ["m"]),
    ]
    floats, integers = TensorProto.FLOAT, TensorProto.INT64
    graph = helper.make_graph(
        nodes,
        "two",
        [
            helper.make_tensor_value_info("x", floats, [4, 16]),
            helper.make_tensor_value_info("n", integers, [3]),
        ],
        [
            helper.make_tensor_value_info("y", floats, [4, 8]),
            helper.make_tensor_value_info("m", integers, [3]),
        ],
        [numpy_helper.from_array(w, "w")],
    )
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8),
        folder / "two.onnx",
    )
    session = Session.open(str(folder / "two.onnx"), units=["cpu"], threads=2)
    made = compiled(session, best_plan(session, priced_problem(Offers.of(session), "roofline")))
    return made.save(folder / "two.so"), w


@pytest.fixture(scope="module")
def model(artifact):
    return layoutsel.device.load(artifact[0])


X = np.random.default_rng(1).standard_normal((4, 16)).astype("float32")
N = np.array([1, 2, 3])


def test_it_computes(artifact, model):
    y, m = map(np.from_dlpack, model(X, N))
    np.testing.assert_allclose(y, X @ artifact[1], rtol=1e-4, atol=1e-5)
    assert m.tolist() == [2, 4, 6]


def test_tensors_may_lie_anywhere(model):
    expected, _ = map(np.from_dlpack, model(X, N))
    for shift in range(1, 17, 5):
        buffer = np.empty(X.size + 32, "float32")
        shifted = buffer[shift : shift + X.size].reshape(X.shape)
        shifted[...] = X
        y, _ = map(np.from_dlpack, model(shifted, N))
        assert np.array_equal(y, expected)


def test_results_are_inputs(model):
    _, m = model(X, N)
    _, again = model(X, m)
    assert np.from_dlpack(again).tolist() == [4, 8, 12]


def test_threads_take_turns(model):
    expected, _ = map(np.from_dlpack, model(X, N))
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda _: np.from_dlpack(model(X, N)[0]), range(40)))
    assert all(np.array_equal(result, expected) for result in results)


@pytest.mark.parametrize(
    ("inputs", "expected"),
    [
        ((X,), "got 1 inputs; expected 2: x, n"),
        ((X, N, N), "got 3 inputs"),
        ((X[:2], N), r"input 'x': got float32 of shape \(2, 16\)"),
        ((X.astype("float64"), N), "got float64"),
        ((X, N.astype("int32")), "input 'n': got int32"),
        ((np.asfortranarray(X), N), "expected contiguous float32"),
    ],
)
def test_other_inputs_are_refused(model, inputs, expected):
    with pytest.raises(InputError, match=expected):
        model(*inputs)


def test_a_damaged_artifact_is_refused(artifact, tmp_path):
    content = artifact[0].read_bytes()
    for name, changed in {"cut": content[:-100], "none": b"nothing" * 9}.items():
        file = tmp_path / f"{name}.so"
        file.write_bytes(changed)
        with pytest.raises(ArtifactError, match=str(file)):
            layoutsel.device.load(file)
    with pytest.raises(ArtifactError, match="cannot read"):
        layoutsel.device.load(tmp_path / "absent.so")
