"""References have limits of time, and large models are computed in a process of their own, their weights in a file."""

from __future__ import annotations

import gc
import time
from dataclasses import replace

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import layoutsel
from layoutsel.compile import importing, verification
from layoutsel.compile.make_plan import best_plan, priced_problem
from layoutsel.compile.offers import Offers
from layoutsel.compile.plan_code import Building
from layoutsel.compile.references import exact_results, onnxruntime_results, stock_results
from layoutsel.compile.session import Session
from layoutsel.core.precision import F32, MODES
from layoutsel.device.checks import VerificationError
from layoutsel.references.onnx_reference import onnxruntime_reference
from layoutsel.references.stored_arrays import ArrayFile
from layoutsel.references.stored_model import StoredModel

X = np.random.default_rng(0).standard_normal((2, 64)).astype("float32")


def network(layers: int = 2, size: int = 64) -> onnx.ModelProto:
    rng = np.random.default_rng(1)
    names = ["x", *(f"t{i}" for i in range(layers - 1)), "t"]
    weights = [
        numpy_helper.from_array(
            rng.standard_normal((size, size)).astype("float32") / size**0.5, f"w{i}"
        )
        for i in range(layers)
    ]
    nodes = [helper.make_node("MatMul", [names[i], f"w{i}"], [names[i + 1]]) for i in range(layers)]
    nodes.append(helper.make_node("Softmax", ["t"], ["y"]))
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [2, size]) for name in "xy")
    graph = helper.make_graph(nodes, "products", [x], [y], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "net.onnx"
    onnx.save(network(), path)
    return path


@pytest.fixture
def opened(path, tmp_path, monkeypatch):
    """A session whose model counts as large."""
    monkeypatch.setattr(importing, "STORED_BYTES", 1)
    return Session.open(str(path), threads=1, cache=tmp_path / "m.sqlite")


@pytest.mark.parametrize("optimised", [True, False])
def test_a_large_model_is_computed_in_another_process(opened, optimised):
    assert opened.stored is not None
    assert opened.model.onnx.ByteSize() < 4096 < network().ByteSize()
    (found,) = onnxruntime_results(opened, [{"x": X}], optimised=optimised)
    expected = onnxruntime_reference(network(), {"x": X}, optimised=optimised)
    assert len(found) == 2
    for got, want in zip(found, expected, strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-6, atol=1e-7)


def test_a_model_that_somebody_holds_stays_as_it_is(monkeypatch):
    monkeypatch.setattr(importing, "STORED_BYTES", 1)
    model = network()
    before = model.SerializeToString(deterministic=True)
    session = Session.open(model, threads=1)
    assert session.stored is not None
    assert session.model.onnx is not model
    assert model.SerializeToString(deterministic=True) == before


def test_stock_tvm_gives_the_same_results(opened):
    (found,) = stock_results(opened, [[X]])
    expected = onnxruntime_reference(network(), {"x": X})
    for got, want in zip(found, expected, strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("results", ["onnx", "tvm"])
def test_a_reference_that_takes_too_long_is_one_clear_error(opened, results):
    hurried = replace(opened, options=replace(opened.options, time_limit_s=1e-3))
    compute = {
        "onnx": lambda: onnxruntime_results(hurried, [{"x": X}]),
        "tvm": lambda: stock_results(hurried, [[X]]),
    }[results]
    started = time.monotonic()
    with pytest.raises(
        VerificationError, match=r"did not compute the reference within 0.001 s\. A"
    ):
        compute()
    assert time.monotonic() - started < 60


def test_references_of_a_small_model_share_a_process_that_ends_with_the_session():
    session = Session.open(network(), threads=1)
    assert session.stored is None
    for optimised in (True, False):
        (found,) = onnxruntime_results(session, [{"x": X}], optimised=optimised)
        assert len(found) == 2
    assert exact_results(session, {"x": X}) is not None
    worker = session.reference_process
    assert worker.starts == 1
    process = worker._child.process
    assert process.poll() is None
    del session
    gc.collect()
    assert process.poll() is not None


def test_the_process_of_the_references_has_ended_when_a_plan_is_built():
    session = Session.open(network(), threads=1)
    assert onnxruntime_results(session, [{"x": X}]) is not None
    process = session.reference_process._child.process
    plan = best_plan(session, priced_problem(Offers.of(session), "roofline"))
    with Building(session, plan, plan.decisions) as building:
        assert process.poll() is not None
        building.model()
    assert onnxruntime_results(session, [{"x": X}]) is not None
    assert session.reference_process.starts == 2


def test_a_process_that_took_too_long_is_replaced():
    session = Session.open(network(), threads=1)
    hurried = replace(session, options=replace(session.options, time_limit_s=1e-3))
    with pytest.raises(VerificationError, match=r"within 0\.001 s"):
        onnxruntime_results(hurried, [{"x": X}])
    assert onnxruntime_results(session, [{"x": X}]) is not None


def test_a_model_that_onnx_runtime_refuses_goes_to_stock_tvm(opened, caplog):
    broken = StoredModel.of(network())
    broken.skeleton.graph.node[0].op_type = "NoSuchOperator"
    assert onnxruntime_results(replace(opened, stored=broken), [{"x": X}]) is None
    assert "ONNX Runtime refuses the model" in caplog.text


def test_verification_has_a_limit_for_the_samples(opened):
    model = layoutsel.optimize(network(), threads=1, cost="roofline", verify_speed=False)
    reference = verification.reference_of(replace(opened, samples=([X],) * 3))
    assert len(verification.checks_of(model, reference, MODES[F32].bound)) == 2
    with pytest.raises(VerificationError, match=r"cannot be verified: a run took longer .* Pin"):
        verification.checks_of(model, replace(reference, limit_s=0.0), MODES[F32].bound)


@pytest.mark.parametrize("dtype", ["float32", "int64", "float16", ml_dtypes.bfloat16, "int8"])
def test_arrays_come_back_from_the_file(dtype):
    arrays = [np.arange(7).astype(dtype), np.ones((0, 3), dtype), np.array(3).astype(dtype)]
    file = ArrayFile(arrays)
    for got, want in zip(file.arrays.mapped(), arrays, strict=True):
        assert got.dtype == want.dtype
        np.testing.assert_array_equal(got, want)
