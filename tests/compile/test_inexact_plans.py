"""f32 means f32: a plan whose error exceeds the promise gives way to the next, and only where all do, that is an error."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import onnx
import pytest
import tvm_ffi
from onnx import TensorProto, helper

from layoutsel.compile.build_best import finish
from layoutsel.compile.make_plan import best_plan, priced_problem
from layoutsel.compile.offers import Offers
from layoutsel.compile.session import Session
from layoutsel.device.checks import VerificationError
from layoutsel.units import base
from tests.registries.packages import toy_unit
from tvm_passes.backends import BACKENDS

SHAPE = (1, 8, 4, 4)


def network() -> onnx.ModelProto:
    nodes = [
        helper.make_node("Relu", ["x"], ["r"]),
        helper.make_node("MaxPool", ["r"], ["y"], kernel_shape=[2, 2]),
    ]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, SHAPE)
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    graph = helper.make_graph(nodes, "inexact", [x], [y])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.fixture(scope="module")
def toy() -> Iterator[dict[str, float]]:
    """The toy unit, whose ReLU has the relative error that the fixture's value says."""
    state = {"error": 0.0, "most": np.inf}

    def relu(x: tvm_ffi.Tensor, out: tvm_ffi.Tensor) -> None:
        toy_unit.toy_relu(x, out)
        values = np.from_dlpack(out)
        values *= np.float32(1 + state["error"])
        values[values > state["most"]] = np.nan

    tvm_ffi.register_global_func("toy.relu", relu, override=True)
    with base.UNITS.including(toy_unit.UNIT), BACKENDS.including(toy_unit.UNIT.backend):
        yield state
    tvm_ffi.register_global_func("toy.relu", toy_unit.toy_relu, override=True)


@pytest.fixture
def finished(toy, tmp_path):
    """Compile with a plan that is on the toy unit, of a given error."""

    def finish_with(error, most=np.inf, pins=(), **options):
        toy["error"], toy["most"] = error, most
        session = Session.open(
            network(), units=("cpu", "toy"), threads=1, cache=tmp_path / "m.sqlite"
        )
        problem = priced_problem(Offers.of(session), "roofline", pins)
        nodes = tuple(
            replace(
                node,
                options=tuple(
                    replace(option, cost_us=1.0 if option.decision.unit == "toy" else 99.0)
                    for option in node.options
                ),
            )
            for node in problem.nodes
        )
        problem = replace(problem, nodes=nodes)
        chosen = best_plan(session, problem)
        assert "toy" in {decision.unit for decision in chosen.decisions.values()}
        return finish(session, chosen, problem, **options)

    return finish_with


def units_of(model):
    return {one["decision"].split(":")[0] for one in model.header["plan"]["subgraphs"]}


def test_a_plan_that_breaks_the_promise_gives_way(finished, caplog):
    model = finished(1.2e-5, verify_speed=False)
    assert units_of(model) == {"cpu"}
    (check,) = model.checks
    assert check["rel_l2_err"] <= 1e-5
    assert "is not exact enough: output 'y' differs from float64" in caplog.text


def test_a_plan_within_the_promise_is_kept(finished, caplog):
    with caplog.at_level(logging.WARNING):
        model = finished(8e-6, verify_speed=False)
    assert "toy" in units_of(model)
    assert not caplog.text


def test_no_plan_within_the_promise_is_an_error(finished):
    with pytest.raises(VerificationError, match=r"differs from float64.*--max-rel-error"):
        finished(1.2e-5, pins=("nn.relu=toy",), verify_speed=False)


def test_a_plan_that_is_no_number_on_extreme_inputs_alone_gives_way(finished, caplog):
    model = finished(0.0, most=1e3, verify_speed=False)
    assert units_of(model) == {"cpu"}
    assert model.checks[0]["samples"] == 2
    assert "differs from ONNX Runtime on extreme inputs: relative L2 error inf" in caplog.text
