"""Help, doctor, inspect, and how errors look."""

from __future__ import annotations

import json
import subprocess
import sys
from functools import partial

import pytest
from command import layoutsel, refused, run_here, small_model, succeed

from tvm_passes.opencl import plugin


def test_help_needs_no_tvm():
    code = (
        "import sys\n"
        "from layoutsel.cli import main\n"
        "try: main(['--help'])\n"
        "except SystemExit as end: assert not end.code\n"
        "assert not {'tvm', 'onnx', 'scipy', 'torch'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for command in (
        "inspect",
        "plan",
        "tune",
        "compile",
        "run",
        "bench",
        "explain",
        "doctor",
        "demo",
    ):
        assert command in done.stdout


def test_version():
    assert succeed("--version", run=layoutsel).startswith("layoutsel 0.")


@pytest.mark.parametrize(
    "arguments", [["fly"], ["plan"], ["plan", "m.onnx", "--fast"], ["run", "m.so", "--repeat", "0"]]
)
def test_usage_errors_exit_with_2(arguments):
    done = run_here(*arguments)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


def test_doctor_reports_units_and_versions():
    report = json.loads(succeed("doctor", "--json"))
    assert report["schema_version"] == 1
    assert report["units"]["cpu"] == {"available": True, "reason": None}
    assert report["packages"]["apache-tvm"]
    assert report["machine"]["cores"] >= 1
    assert any("dot" in line for line in report["missing"]) == (report["tools"]["dot"] is None)
    assert "measurements.sqlite" in report["caches"]["measurements"]


def test_doctor_names_opencl_devices_or_what_they_lack(tmp_path):
    without = json.loads(
        succeed("doctor", "--json", run=partial(layoutsel, OCL_ICD_VENDORS=str(tmp_path)))
    )
    assert without["native"]["OpenCL"] == "no device"
    assert any(line.startswith("unit opencl: ") for line in without["missing"])
    if plugin.devices():
        assert "opencl:0 (" in succeed("doctor")


def test_doctor_for_people():
    text = succeed("doctor")
    assert "unit cpu" in text
    assert "apache-tvm-ffi" in text


def test_inspect_counts_work_and_names_nodes(model):
    report = json.loads(succeed("inspect", model, "--json", run=layoutsel))
    first = report["subgraphs"][0]
    assert first["names"][0] == "first"
    assert first["onnx_operators"] == ["Conv", "Relu"]
    assert first["flops"] >= 2 * 12 * 12 * 32 * 16 * 9
    assert first["units"]["cpu"]["score_us"] > 0
    assert "cpu:NCHW" in first["units"]["cpu"]["candidates"]
    assert report["totals"]["units"]["cpu"]["covered"] == len(report["subgraphs"])


def test_inspect_for_people(model):
    text = succeed("inspect", model, "--units", "cpu")
    assert "conv2d+add+relu" in text
    assert "GFLOP" in text
    assert "onednn" not in text


def test_a_dynamic_dimension_needs_a_shape(tmp_path):
    dynamic = small_model(tmp_path / "dynamic.onnx", batch="N")
    assert "--shape x=1,16,12,12" in refused("inspect", dynamic)
    report = json.loads(succeed("inspect", dynamic, "--shape", "x=2,16,12,12", "--json"))
    assert report["inputs"][0]["shape"] == [2, 16, 12, 12]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (None, "no such file"),
        (b"", "empty file"),
        (b"PK\x03\x04 not a model", "not an ONNX model"),
        ("truncated", "cut short"),
    ],
)
def test_a_bad_model_file(tmp_path, model, content, expected):
    path = tmp_path / "bad.onnx"
    if content == "truncated":
        content = model.read_bytes()[:-1000]
    if content is not None:
        path.write_bytes(content)
    assert expected in refused("plan", path, "--cost", "roofline")


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--units", "npu"], "unknown unit 'npu'"),
        (["--pin", "first"], "cannot read pin 'first'"),
        (["--pin", "third=cpu"], "matches no sub-graph"),
        (["--pin", "first=cpu:NCHW7c"], "cannot be honoured for sub-graph first"),
        (["--strategy", "luck"], "strategy 'luck': expected one of joint, score"),
        (["--cost", "oracle"], "cost 'oracle'"),
        (["--shape", "x=1,a"], "--shape 'x=1,a'"),
        (["--shape", "z=1,16,12,12"], "no such input; expected one of x"),
        (["--threads", "0"], "got 0 threads"),
        (["--objective", "beauty"], "unknown objective 'beauty'; expected one of makespan, sum"),
        (["--objective", "within-error"], "such as --precision auto --max-rel-error 1e-3"),
        (["--objective", "sum", "--parallel"], "got --objective sum (objective sum) and --par"),
        (["--parallel", "--precision", "auto"], "expected options that ask for one objective"),
        (["-o", "/nowhere/plan.json"], "there is no directory /nowhere"),
    ],
)
def test_a_bad_option(model, options, expected):
    cost = [] if "--cost" in options else ["--cost", "roofline"]
    assert expected in refused("plan", model, *cost, *options)


def test_an_unexpected_error_is_one_line_with_a_hint(model, tmp_path):
    code = (
        "import layoutsel.cli.plan as plan\n"
        "from layoutsel.cli import main\n"
        "def fail(*_): raise KeyError('lost')\n"
        "plan.opened = fail\n"
        "main()"
    )
    command = [sys.executable, "-c", code, "plan", str(model)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert (
        done.stderr
        == "layoutsel: error: unexpected KeyError: 'lost' (--debug shows the traceback)\n"
    )
    shown = subprocess.run([*command, "--debug"], capture_output=True, text=True, check=False)
    assert "Traceback" in shown.stderr
