"""Tuning for a device, timed on the device itself."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

import layoutsel
from tests.cli.command import refused, succeed
from tests.reference import relative_error, run_onnx
from tests.tuning.conftest import LAYOUTS, record_lines
from tvm_passes.opencl import plugin

TRIALS = 2


def test_units_without_schedules_are_refused(model):
    message = refused("tune", model, "--unit", "onednn")
    assert "expected one of cpu, cuda, opencl" in message


@pytest.mark.skipif(not plugin.devices(), reason="no OpenCL device")
def test_a_target_of_another_kind_is_refused(model):
    message = refused(
        *("tune", model, "--unit", "opencl", "--tracker", "localhost:1", "--key", "board"),
        *("--target", "llvm"),
    )
    assert "a target of kind 'llvm'; expected 'opencl'" in message


@pytest.mark.nightly
@pytest.mark.skipif(not plugin.devices(), reason="no OpenCL device")
def test_records_of_a_device_are_used_on_it(model, tmp_path):
    logs = tmp_path / "logs"
    succeed("tune", model, "--unit", "opencl", "--trials", TRIALS, "--logs", logs)
    lines = record_lines(logs)
    assert {line[1][2]["kind"] for line in lines} == {"opencl"}
    assert len(lines) <= TRIALS * len(LAYOUTS)
    decision = "opencl:NHWC:f32:tuned"
    compiled = layoutsel.optimize(
        model,
        units=["opencl"],
        pins=[f"nn.conv2d={decision}"],
        cost="roofline",
        logs=logs,
        verify_speed=False,
        cache=tmp_path / "cache.sqlite",
    )
    assert [entry["decision"] for entry in compiled.plan["subgraphs"]] == [decision]
    x = np.random.default_rng(3).standard_normal((1, 16, 8, 8)).astype("float32")
    assert relative_error(compiled(x), run_onnx(onnx.load(model), {"x": x})[0]) < 1e-5
