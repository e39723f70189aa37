"""A sub-graph that its unit fails to build: the error carries sub-graph and unit, and the CPU takes over."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator

import pytest
import tvm
from onnx import TensorProto, helper

from layoutsel.building.build import lower_decisions
from layoutsel.compile.session import Session
from layoutsel.errors import BuildError, Decline, Declined
from tvm_passes import onednn
from tvm_passes.backends import BACKENDS, Backend
from tvm_passes.decision import Decision, SubgraphId
from tvm_passes.errors import SubgraphError, whole_errors
from tvm_passes.pipeline import lower

FIRST, SECOND = SubgraphId("pooled"), SubgraphId("summed")
CPU = Decision(unit="cpu")


@pytest.fixture(scope="module")
def session(tmp_path_factory) -> Session:
    """Two sub-graphs: a pooling, and a sum that no unit but the CPU computes."""
    nodes = [
        helper.make_node("MaxPool", ["x"], ["p"], "pooled", kernel_shape=[2, 2]),
        helper.make_node("CumSum", ["p", "axis"], ["y"], "summed"),
    ]
    x, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, 4, 5, 5]) for n in "xy")
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    axis = helper.make_tensor("axis", TensorProto.INT64, [], [1])
    graph = helper.make_graph(nodes, "two", [x], [y], [axis])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    opened = Session.open(model, threads=1, cache=tmp_path_factory.mktemp("c") / "m.sqlite")
    assert [one.id for one in opened.graph.subgraphs] == [FIRST, SECOND]
    return opened


def declined() -> Declined:
    return Declined(
        Decline(
            subgraph=SECOND, operator="cumsum", decision="broken:NCHW", got="this", expected="that"
        )
    )


ERRORS: dict[str, Callable[[], Exception]] = {
    "build error": lambda: BuildError("out of luck", subgraph=SECOND, unit="broken"),
    "decline": declined,
}
"""What the unit `broken` raises; no message is in a form that could be searched."""


@pytest.fixture(params=ERRORS)
def broken(request) -> Iterator[str]:
    """A unit from outside the package whose lowering fails."""

    @tvm.transform.module_pass(opt_level=0, name="LowerBroken")
    class LowerBroken:
        def transform_module(self, module, _context):
            units = {
                str(f.attrs.get("layoutsel.unit", "")) for f in module.functions.values() if f.attrs
            }
            if "broken" in units:
                raise ERRORS[request.param]()
            return module

    broken = Backend(
        name="broken", supports=lambda _f, _d: None, lower=lambda _target: LowerBroken()
    )
    with BACKENDS.including(broken):
        yield "broken"


def test_errors_keep_their_fields_across_passes(session, broken):
    decisions = {FIRST: CPU, SECOND: Decision(unit=broken)}
    with pytest.raises(SubgraphError) as caught:
        lower(session.functions.module, decisions, tvm.target.Target("llvm"))
    assert (caught.value.subgraph, caught.value.unit) == (SECOND, broken)


def test_the_failing_sub_graph_alone_goes_to_the_cpu(session, broken, caplog):
    other = Decision(unit="onednn") if onednn.available() is None else CPU
    with caplog.at_level(logging.WARNING):
        lowered = lower_decisions(session.functions, {FIRST: other, SECOND: Decision(unit=broken)})
    assert lowered.decisions == {FIRST: other, SECOND: CPU}
    assert "it falls back to the CPU in plain layout" in caplog.text


def test_an_error_of_the_cpu_itself_is_passed_on(session):
    @tvm.transform.module_pass(opt_level=0, name="Fails")
    class Fails:
        def transform_module(self, _module, _context):
            raise BuildError("no luck either", subgraph=SECOND, unit="cpu")

    broken = Backend(name="broken", supports=lambda _f, _d: None, lower=lambda _target: Fails())
    with BACKENDS.including(broken), pytest.raises(BuildError, match="no luck either"):
        lower_decisions(session.functions, {FIRST: CPU, SECOND: CPU})


@pytest.mark.skipif(onednn.available() is not None, reason="the oneDNN plugin is not built")
def test_onednn_names_the_sub_graph_that_it_has_no_primitive_for(session, caplog):
    decisions = dict.fromkeys((FIRST, SECOND), Decision(unit="onednn"))
    with pytest.raises(BuildError) as caught:
        lower(session.functions.module, decisions, tvm.target.Target("llvm"))
    assert (caught.value.subgraph, caught.value.unit) == (SECOND, "onednn")
    with caplog.at_level(logging.WARNING):
        lowered = lower_decisions(session.functions, decisions)
    assert lowered.decisions == {FIRST: Decision(unit="onednn"), SECOND: CPU}


def test_errors_outside_of_passes_are_what_they_are():
    with pytest.raises(BuildError) as caught, whole_errors():
        raise BuildError("text") from ValueError("cause")
    assert isinstance(caught.value.__cause__, ValueError)
    assert not caught.value.subgraph
