"""Bundles with an OpenCL device: candidates, copies, and a model whose weights lie there."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from on_opencl import needs_device
from onnx import TensorProto, helper, numpy_helper

from layoutsel.bundling.bring_home import bring_home
from layoutsel.bundling.candidates import write_candidates
from layoutsel.bundling.deployment import write_deployment
from layoutsel.bundling.making import Making
from layoutsel.compile.make_plan import best_plan, priced_problem
from layoutsel.compile.offers import Offers
from layoutsel.compile.session import Session
from layoutsel.cost.samples import MachineProfile
from layoutsel.device.archive import opened
from layoutsel.device.measure import measure_bundle
from tvm_passes.opencl import identity

pytestmark = needs_device


@pytest.fixture(scope="module")
def session(tmp_path_factory):
    """Two products: without images, few layouts are measured."""
    weights = [np.random.default_rng(i).standard_normal((64, 64)).astype("float32") for i in (0, 1)]
    nodes = [
        helper.make_node("MatMul", ["x", "w0"], ["a"]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("MatMul", ["b", "w1"], ["y"]),
    ]
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [4, 64]) for name in "xy")
    tensors = [numpy_helper.from_array(w, f"w{i}") for i, w in enumerate(weights)]
    graph = helper.make_graph(nodes, "products", [x], [y], tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    folder = tmp_path_factory.mktemp("model")
    onnx.save(model, folder / "products.onnx")
    return Session.open(
        str(folder / "products.onnx"),
        units=["cpu", "opencl"],
        threads=1,
        cache=folder / "m.sqlite",
    )


def made(write, session, folder, *more):
    """The results of a bundle that `write` writes, measured in this environment."""
    (folder / "contents").mkdir()
    write(Making(session, folder / "contents"), *more, folder / "bundle.tar")
    with opened(folder / "bundle.tar") as bundle:
        return measure_bundle(bundle, folder / "results.json", 60.0, lambda _progress: None)


def test_candidates_and_copies(session, tmp_path):
    found = made(write_candidates, session, tmp_path)
    on_device = [one for one in found.candidates if one.decision.unit == "opencl"]
    assert on_device
    assert all(one.timing for one in on_device), [one.failure for one in on_device]
    copies = {(b.source, b.destination) for b in found.boundaries if b.kind == "crossing"}
    assert {("cpu", "opencl"), ("opencl", "cpu")} <= copies
    assert all(one.timing for one in found.boundaries)

    kept = bring_home(tmp_path / "results.json", tmp_path / "cache.sqlite")
    card = MachineProfile.load(kept.machine_file).devices["opencl"]
    assert card.name == identity()
    assert card.gflops > 0
    planned = Session.open(
        session.model.onnx,
        units=["cpu", "opencl"],
        machine=kept.machine_file,
        cache=tmp_path / "cache.sqlite",
    )
    assert planned.context.machine == session.context.machine
    problem = priced_problem(Offers.of(planned), "measured")
    sources = {option.source for node in problem.nodes for option in node.options}
    assert sources == {"measured"}


def test_a_model_on_both(session, tmp_path):
    first, second = session.graph.ids[:2]
    pins = [f"{first}=opencl", f"{second}=cpu"]
    problem = priced_problem(Offers.of(session), "roofline", pins=pins)
    found = made(write_deployment, session, tmp_path, best_plan(session, problem)).deployed
    assert found is not None
    assert all(one.rel_l2_err <= one.tolerance for one in found.checks)
