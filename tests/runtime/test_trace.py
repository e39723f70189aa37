"""Traces of a network that both units share."""

from __future__ import annotations

import itertools

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import layoutsel
from layoutsel.runtime.chrome_trace import chrome_trace, write_trace
from layoutsel.runtime.trace import subgraph_times
from tvm_passes import onednn
from tvm_passes.cpu.host import has_bf16, host_target
from tvm_passes.errors import LayoutselError

RUNS = 2


def network() -> onnx.ModelProto:
    """Three convolutions in a row."""
    generator = np.random.default_rng(0)
    nodes, weights = [], []
    for index in range(3):
        values = generator.standard_normal((32, 32, 3, 3)).astype(np.float32) / 17
        weights.append(numpy_helper.from_array(values, f"w{index}"))
        tensors = ([f"t{index}", f"w{index}"], [f"t{index + 1}"])
        nodes.append(helper.make_node("Conv", *tensors, name=f"conv{index}", pads=[1, 1, 1, 1]))
    shape = [1, 32, 14, 14]
    values = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in ("t0", "t3")
    ]
    graph = helper.make_graph(nodes, "three", values[:1], values[1:], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    if reason := onednn.available():
        pytest.skip(reason)
    pins = ("conv0=onednn:NHWC", "conv1=cpu:NCHW", "conv2=onednn:NHWC")
    model = layoutsel.optimize(network(), cost="roofline", pins=pins, threads=2, verify_speed=False)
    path = tmp_path_factory.mktemp("artifact") / "three.so"
    return layoutsel.load(model.save(path))


def ids(compiled) -> list[str]:
    """Ids of the sub-graphs in order."""
    return [subgraph["id"] for subgraph in compiled.plan["subgraphs"]]


@pytest.fixture(scope="module")
def values():
    return [np.ones((1, 32, 14, 14), np.float32)]


def test_every_subgraph_runs_on_its_unit_once_per_run(compiled, values):
    events = compiled.trace(values, runs=RUNS)
    ran = [(event.name, event.unit) for event in events if event.kind == "subgraph"]
    assert ran == RUNS * list(zip(ids(compiled), ("onednn", "cpu", "onednn"), strict=True))
    assert {event.run for event in events} == set(range(RUNS))


def test_transforms_are_visible(compiled, values):
    events = compiled.trace(values)
    names = [event.name for event in events if event.kind == "transform"]
    assert names == ["NCHW>NHWC", "NHWC>NCHW", "NCHW>NHWC", "NHWC>NCHW"]


def test_events_do_not_overlap(compiled, values):
    events = compiled.trace(values, runs=RUNS)
    slack_us = 1.0
    for before, after in itertools.pairwise(events):
        assert after.start_us >= before.start_us + before.duration_us - slack_us


def test_tracing_leaves_the_results_alone(compiled, values):
    before = compiled(*values)
    compiled.trace(values)
    np.testing.assert_array_equal(compiled(*values), before)


def test_times_by_subgraph(compiled, values):
    times = subgraph_times(compiled, values, runs=3)
    assert set(times) == set(ids(compiled))
    assert all(us > 0 for us in times.values())


def test_chrome_trace_names_rows_and_predictions(compiled, values):
    document = chrome_trace(compiled.header, compiled.trace(values))
    events = document["traceEvents"]
    rows = {event["args"]["name"] for event in events if event["name"] == "thread_name"}
    assert rows == {"runs", "unit cpu", "unit onednn"}
    (second,) = (event for event in events if event["name"].startswith(f"{ids(compiled)[1]} "))
    assert second["args"]["decision"] == "cpu:NCHW"
    assert second["args"]["names"] == ["conv1"]
    assert second["args"]["predicted_us"] > 0
    assert {event["ph"] for event in events} == {"M", "X"}


def test_a_trace_that_cannot_be_written(compiled, values, tmp_path):
    with pytest.raises(LayoutselError, match="cannot write"):
        write_trace(compiled, values, tmp_path / "none" / "trace.json")


@pytest.mark.skipif(not has_bf16(host_target()), reason="the CPU has no AVX512_BF16")
def test_transforms_of_storage_are_named_after_layouts():
    pins = ("conv0=cpu:NHWC", "conv1=cpu:NCHW", "conv2=cpu:NHWC")
    relu = network()
    relu.graph.node.insert(1, helper.make_node("Relu", ["t1"], ["r1"], name="relu"))
    relu.graph.node.insert(
        2, helper.make_node("MaxPool", ["r1"], ["p1"], name="pool", kernel_shape=[1, 1])
    )
    relu.graph.node[3].input[0] = "p1"
    compiled = layoutsel.optimize(
        relu,
        units=["cpu"],
        threads=1,
        precision="bf16",
        pins=(*pins, "pool=cpu:NCHW:bf16"),
        verify=False,
        verify_speed=False,
    )
    (event,) = [
        e
        for e in compiled.trace([np.ones((1, 32, 14, 14), "float32")])
        if "bf16" in e.name and e.name.startswith("NCHW.")
    ]
    assert event.name == "NCHW.bf16>NCHW"
