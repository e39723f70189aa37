"""The unit `opencl` in plans: forced by pins, measured, saved, loaded, traced, refused."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from on_opencl import needs_device
from tvm import relax

import layoutsel
from layoutsel.units.base import select
from tests.cli.command import layoutsel as command
from tests.cli.command import refused, small_model, succeed
from tvm_passes.backends import BACKENDS
from tvm_passes.decision import Decision
from tvm_passes.partition import PartitionSubgraphs
from tvm_passes.rewrite_layouts import subgraph_id


@pytest.fixture(scope="module")
def path(tmp_path_factory) -> Path:
    return small_model(tmp_path_factory.mktemp("model") / "small.onnx")


@pytest.fixture(scope="module")
def artifact(path, tmp_path_factory) -> Path:
    """Sub-graphs by turns on the device and on the CPU, whatever that costs."""
    folder = tmp_path_factory.mktemp("artifact")
    pins = [
        "first=opencl",
        "second=cpu:NHWC",
        "pool=opencl",
        "classify=cpu",
        "probabilities=opencl",
    ]
    compiled = layoutsel.optimize(
        str(path),
        units=["cpu", "opencl"],
        pins=pins,
        threads=2,
        cache=folder / "cache.sqlite",
        measure_budget_s=2.0,
        verify_speed=False,
    )
    chosen = {s["decision"].split(":")[0] for s in compiled.plan["subgraphs"]}
    assert chosen == {"cpu", "opencl"}
    return compiled.save(folder / "mixed.so")


def expected(path: Path, value: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(None, {"x": value})[0]


@needs_device
def test_a_mixed_plan_gives_the_right_result(path, artifact):
    value = np.random.default_rng(3).standard_normal((1, 16, 12, 12)).astype(np.float32)
    again = layoutsel.load(artifact)
    for _ in range(3):
        np.testing.assert_allclose(again(value), expected(path, value), rtol=1e-4, atol=1e-6)


@needs_device
def test_an_artifact_runs_in_a_process_of_its_own_and_tells_of_copies(artifact, tmp_path):
    trace = tmp_path / "trace.json"
    succeed("run", artifact, "--repeat", 1, "--trace", trace, run=command)
    events = [e for e in json.loads(trace.read_text())["traceEvents"] if "cat" in e]
    copies = [e["name"] for e in events if e["cat"] == "copy"]
    assert {"cpu>opencl", "opencl>cpu"} <= set(copies)
    rows = {
        e["tid"]: e["args"]["name"]
        for e in json.loads(trace.read_text())["traceEvents"]
        if e["name"] == "thread_name"
    }
    assert {"unit opencl", "unit cpu", "unit copies"} <= set(rows.values())


@needs_device
def test_a_plan_says_which_devices_it_needs(path, artifact, tmp_path):
    planned = layoutsel.load(artifact).plan
    file = tmp_path / "plan.json"
    file.write_text(json.dumps(planned))
    succeed("compile", path, "--plan", file, "-o", tmp_path / "again.so", run=command)
    value = np.random.default_rng(4).standard_normal((1, 16, 12, 12)).astype(np.float32)
    for again in (layoutsel.load(tmp_path / "again.so"), layoutsel.compile_plan(path, file)):
        assert again.plan["subgraphs"] == planned["subgraphs"]
        np.testing.assert_allclose(again(value), expected(path, value), rtol=1e-4, atol=1e-6)


@needs_device
def test_an_artifact_without_its_device_is_refused(artifact, tmp_path):
    without = partial(command, OCL_ICD_VENDORS=str(tmp_path))
    line = refused("run", artifact, run=without)
    assert "needs the unit 'opencl': no driver finds a device" in line


def test_a_unit_without_a_device_is_refused(path, tmp_path):
    without = partial(command, OCL_ICD_VENDORS=str(tmp_path))
    line = refused("plan", path, "--units", "cpu,opencl", run=without)
    assert "unit 'opencl' cannot be used here: " in line


@needs_device
@pytest.mark.parametrize(
    ("decision", "body", "dtype", "got"),
    [
        ("opencl:NCHW16c", relax.op.exp, "float32", "layout NCHW16c"),
        ("opencl:NCHW:bf16", relax.op.exp, "float32", "precision bf16"),
        ("opencl:NCHW:f32:winograd", relax.op.exp, "float32", "algorithm winograd"),
        ("opencl:NCHW", relax.op.exp, "float16", "float16"),
        ("opencl:NCHW", lambda x: relax.op.cumsum(x, axis=1), "float32", "lock step"),
    ],
)
def test_declines(decision, body, dtype, got):
    builder = relax.BlockBuilder()
    x = relax.Var("x", relax.TensorType((1, 8, 4, 4), dtype))
    with builder.function("main", [x]):
        with builder.dataflow():
            result = builder.emit_output(builder.emit(body(x)))
        builder.emit_func_output(result)
    module = PartitionSubgraphs()(builder.get())
    (function,) = [f for f in module.functions.values() if subgraph_id(f)]
    decline = BACKENDS["opencl"].supports(function, Decision.parse(decision))
    assert got in decline.got
    assert decline.expected


@needs_device
def test_it_takes_no_part_unless_it_is_named():
    assert "opencl" not in select()
    assert list(select(("cpu", "opencl"))) == ["cpu", "opencl"]
