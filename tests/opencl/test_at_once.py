"""A device and the host at once: planned, run and traced."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from on_opencl import needs_device
from onnx import TensorProto, helper, numpy_helper

import layoutsel
from layoutsel.planning.plan import Plan
from tests.cli.command import layoutsel as command
from tests.cli.command import succeed
from tests.reference import relative_error, run_onnx

pytestmark = needs_device

# Each branch computes for longer than a scheduler lets a thread wait, also on a busy machine.
SHAPE = (1, 32, 128, 128)
UNITS = ["cpu", "opencl"]


def forked() -> onnx.ModelProto:
    """A stem, two chains of convolutions that read it, and their sum."""
    generator = np.random.default_rng(0)
    nodes, weights = [], []

    def convolution(name: str, read: str) -> str:
        values = generator.standard_normal((32, 32, 3, 3)).astype("float32") * 0.08
        weights.append(numpy_helper.from_array(values, f"{name}_w"))
        made = f"{name}_y"
        pads = [1, 1, 1, 1]
        nodes.append(helper.make_node("Conv", [read, f"{name}_w"], [made], name=name, pads=pads))
        return made

    ends = []
    stem = convolution("stem", "x")
    for branch in ("left", "right"):
        made = stem
        for number in range(3):
            made = convolution(f"{branch}_{number}", made)
        ends.append(made)
    nodes.append(helper.make_node("Add", ends, ["y"], name="join"))
    tensors = [helper.make_tensor_value_info(name, TensorProto.FLOAT, SHAPE) for name in "xy"]
    graph = helper.make_graph(nodes, "forked", tensors[:1], tensors[1:], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.fixture(scope="module")
def compiled(tmp_path_factory) -> Path:
    """The left branch is pinned to the device, everything else to the host."""
    folder = tmp_path_factory.mktemp("at_once")
    model = layoutsel.optimize(
        forked(),
        units=UNITS,
        threads=1,
        pins=["left_.*=opencl:NCHW", "(stem|right_.*|join)=cpu"],
        cost="roofline",
        parallel=True,
        verify_speed=False,
        cache=folder / "cache.sqlite",
    )
    return model.save(folder / "forked.so")


def test_the_device_is_called_before_what_the_host_does_meanwhile(compiled):
    plan = layoutsel.load(compiled).plan
    names = {entry["id"]: entry["names"][0] for entry in plan["subgraphs"]}
    order = [names[id_].split("_")[0] for id_ in plan["makespan"]["order"]]
    assert order[:4] == ["stem", "left", "left", "left"]
    assert plan["makespan"]["bound_us"] <= plan["makespan"]["us"] < plan["cost_us"]


def test_both_are_at_work_at_once_and_the_result_is_right(compiled, tmp_path):
    model = layoutsel.load(compiled)
    x = np.random.default_rng(1).standard_normal(SHAPE).astype("float32")
    expected = run_onnx(forked(), {"x": x})[0]
    for _ in range(3):
        assert relative_error(model(x), expected) < 1e-5
    assert any(shared_us(compiled, tmp_path / f"{attempt}.json") > 0 for attempt in range(10))


def shared_us(compiled: Path, trace: Path) -> float:
    """How long both compute in a run, by its trace."""
    succeed("run", compiled, "--repeat", 1, "--trace", trace, run=command)
    entries = json.loads(trace.read_text())["traceEvents"]
    rows = {e["tid"]: e["args"]["name"] for e in entries if e["name"] == "thread_name"}
    spans = {
        unit: [
            (e["ts"], e["ts"] + e["dur"])
            for e in entries
            if e.get("cat") == "subgraph" and rows[e["tid"]] == f"unit {unit}"
        ]
        for unit in UNITS
    }
    assert all(spans.values())
    return sum(
        max(0.0, min(one[1], other[1]) - max(one[0], other[0]))
        for one, other in itertools.product(*spans.values())
    )


def test_the_command_says_what_is_gained(tmp_path):
    file, model = tmp_path / "plan.json", tmp_path / "forked.onnx"
    onnx.save(forked(), model)
    printed = succeed(
        *("plan", model, "--units", "cpu,opencl", "--cost", "roofline", "--parallel", "-o", file),
        run=command,
    )
    assert "devices and host at once: " in printed
    makespan = Plan.load(file).makespan
    assert makespan is not None
    assert 0 < makespan.bound_us <= makespan.us
