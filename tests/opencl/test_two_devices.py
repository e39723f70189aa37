"""One network on two OpenCL devices, in processes that have two of them, or one."""

from __future__ import annotations

import functools
import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper

from tests.cli.command import layoutsel as command
from tests.prepared import run_python
from tests.reference import relative_error
from tests.small_models import model_of
from tvm_passes.opencl import plugin

SETTINGS = ("pthread pthread", "cpu cpu", "basic basic")
"""Values of PoCL's variable by which some version of it shows two devices."""
LIMIT_S = 300
SHAPE = (1, 3, 16, 16)
PINS = ("stem=opencl@0", "left=opencl@1", "right=opencl@0", "last=opencl@1")


def python(program: str, *arguments: object, devices: str) -> str:
    """What a process that has these devices prints on standard output and on standard error."""
    variables = {"POCL_DEVICES": devices}
    done = run_python("-c", program, *arguments, limit_s=LIMIT_S, environment=variables)
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


@functools.cache
def two_devices() -> str | None:
    """A setting that shows two devices; None if there is none, as without PoCL."""
    program = "from tvm_passes.opencl import plugin; print(len(plugin.devices()))"
    if not plugin.devices():
        return None
    found = (setting for setting in SETTINGS if python(program, devices=setting).strip() == "2")
    return next(found, None)


@pytest.fixture(name="two", scope="module")
def two_fixture() -> str:
    setting = two_devices()
    if setting is None:
        pytest.skip(
            "no two OpenCL devices (Debian: pocl-opencl-icd shows as many as it is asked to)"
        )
    return setting


@pytest.fixture(name="one")
def one_fixture(two) -> str:
    return two.split()[0]


@pytest.fixture(name="path", scope="module")
def path_fixture(tmp_path_factory) -> Path:
    """A stem, two branches, what joins them, and a convolution of all."""
    rng = np.random.default_rng(0)
    weights, nodes = {}, []

    def conv(name: str, source: str, shape: tuple[int, ...]) -> None:
        weights[f"{name}_w"] = (rng.standard_normal(shape) * 0.2).astype(np.float32)
        pads = [shape[-1] // 2] * 4
        node = helper.make_node("Conv", [source, f"{name}_w"], [name], name=name, pads=pads)
        nodes.append(node)

    conv("stem", "x", (16, 3, 3, 3))
    conv("left", "stem", (16, 16, 3, 3))
    conv("right", "stem", (16, 16, 1, 1))
    nodes.append(helper.make_node("Concat", ["left", "right"], ["both"], name="join", axis=1))
    conv("last", "both", (8, 32, 1, 1))
    path = tmp_path_factory.mktemp("network") / "network.onnx"
    onnx.save(model_of(nodes, {"x": SHAPE}, {"last": (1, 8, 16, 16)}, weights), path)
    return path


@pytest.fixture(name="sample", scope="module")
def sample_fixture(path) -> tuple[Path, np.ndarray]:
    """A file with an input, and what ONNX Runtime makes of it."""
    x = np.random.default_rng(1).standard_normal(SHAPE).astype(np.float32)
    file = path.with_name("x.npy")
    np.save(file, x)
    return file, onnxruntime.InferenceSession(str(path)).run(None, {"x": x})[0]


COMPILE = """
import json, sys
import numpy as np
import layoutsel
path, to, fallback, *pins = sys.argv[1:]
model = layoutsel.optimize(
    path, units=["cpu", "opencl"], pins=pins, threads=2, cost="roofline", verify_speed=False,
    fallback=fallback or None, cache=to + ".sqlite",
)
model.save(to)
events = model.trace(model.bind(np.ones((1, 3, 16, 16), np.float32)))
print(json.dumps({
    "devices": model.header["devices"],
    "places": model.header["places"],
    "decisions": {s["names"][0]: s["decision"] for s in model.plan["subgraphs"]},
    "copies": [event.name for event in events if event.kind == "copy"],
    "units": sorted({event.unit for event in events if event.kind == "subgraph"}),
}))
"""


def compiled(path: Path, to: Path, two: str, fallback: str = "") -> dict[str, object]:
    printed = python(COMPILE, path, to, fallback, *PINS, devices=two)
    return json.loads(next(line for line in printed.splitlines() if line.startswith("{")))


@pytest.fixture(name="saved", scope="module")
def saved_fixture(path, two, tmp_path_factory):
    to = tmp_path_factory.mktemp("model") / "model.so"
    return to, compiled(path, to, two)


RUN = """
import sys
import numpy as np
import layoutsel
_, path, x, y = sys.argv
model = layoutsel.load(path)
for _ in range(3):
    result = model(np.load(x))
np.save(y, result)
"""
RUN_WITHOUT_NUMPY = """
import sys
import numpy as np
from layoutsel.device.model import load
from layoutsel.device.tensors import bytes_of
_, path, x, y = sys.argv
result = load(path)(np.load(x))
np.save(y, np.frombuffer(bytes_of(result), np.float32).reshape(result.shape))
"""


def test_both_devices_take_part(saved):
    _, told = saved
    assert told["devices"] == ["llvm", "opencl", "opencl/1"]
    assert sorted(told["places"]) == ["opencl", "opencl", "opencl/1", "opencl/1"]
    placed = {name: decision.partition(":")[0] for name, decision in told["decisions"].items()}
    assert [placed[name] for name in ("stem", "left", "right", "last")] == [
        "opencl",
        "opencl@1",
        "opencl",
        "opencl@1",
    ]
    assert {"opencl", "opencl@1"} <= set(told["units"])
    # What the stem gives goes from device to device at once; the run time tells both ends.
    assert "opencl>opencl/1" in told["copies"]


@pytest.mark.parametrize("program", [RUN, RUN_WITHOUT_NUMPY])
def test_another_process_gets_the_reference_s_result(saved, sample, two, tmp_path, program):
    x, expected = sample
    python(program, saved[0], x, tmp_path / "y.npy", devices=two)
    assert relative_error(np.load(tmp_path / "y.npy"), expected) < 1e-5


FAILING = """
import sys
import layoutsel
from layoutsel.errors import LayoutselError
for load in (layoutsel.load, __import__("layoutsel.device.model").device.model.load):
    try:
        load(sys.argv[1])
    except LayoutselError as error:
        print(type(error).__name__, error)
"""


def test_one_device_alone_is_one_clear_error(saved, one):
    printed = python(FAILING, saved[0], devices=one)
    lines = printed.splitlines()
    assert len(lines) == 2
    said = f"UnitUnavailable {saved[0]} needs the device opencl/1: this machine has opencl/0; "
    assert all(line.startswith(said) for line in lines), printed


def test_the_fallback_needs_no_device(path, sample, two, one, tmp_path):
    x, expected = sample
    compiled(path, tmp_path / "model.so", two, fallback="cpu")
    told = python(RUN, tmp_path / "model.so", x, tmp_path / "y.npy", devices=one)
    assert "needs the device opencl/1" in told
    assert "the fallback model of host units is loaded instead" in told
    assert relative_error(np.load(tmp_path / "y.npy"), expected) < 1e-5


def test_plans_are_files_and_doctor_shows_each_device(path, sample, two, one, tmp_path):
    plan, model = tmp_path / "plan.json", tmp_path / "model.so"
    given = ["--units", "cpu,opencl", "--cost", "roofline", "--cache", tmp_path / "cache.sqlite"]
    pins = [part for pin in PINS for part in ("--pin", pin)]
    made = command("plan", path, *given, *pins, "-o", plan, POCL_DEVICES=two)
    assert made.returncode == 0, made.stderr
    decided = {s["names"][0]: s["decision"] for s in json.loads(plan.read_text())["subgraphs"]}
    assert decided["left"].startswith("opencl@1:")
    refused = command("compile", path, "--plan", plan, "-o", model, POCL_DEVICES=one)
    assert refused.returncode == 2
    assert "got device opencl/1; expected one of opencl/0" in " ".join(refused.stderr.split())
    built = command("compile", path, "--plan", plan, "-o", model, POCL_DEVICES=two)
    assert built.returncode == 0, built.stderr
    x, expected = sample
    python(RUN, model, x, tmp_path / "y.npy", devices=two)
    assert relative_error(np.load(tmp_path / "y.npy"), expected) < 1e-5
    report = json.loads(command("doctor", "--json", POCL_DEVICES=two).stdout)
    assert list(report["devices"]) == ["opencl/0", "opencl/1"]
    links = report["devices"]["opencl/0"]["links"]
    assert [link.split()[:3] for link in links] == [
        ["opencl/0", ">", "cpu/0"],
        ["opencl/0", ">", "opencl/1"],
    ]


STAGES = """
import sys
import numpy as np
import onnx
import layoutsel
from dataclasses import replace
from tests.runtime.branching import BRANCHES, expected, image, network, planned
from tvm_passes.decision import Decision
plan = planned(network(1), ("cpu",))
where = {"trunk": "opencl@1", **dict(zip(BRANCHES, ("opencl", "opencl@1")))}
units = {id_: where[stage.name] for stage in plan.stages for id_ in stage.subgraphs}
decisions = {id_: Decision.parse(f"{unit}:NCHW") for id_, unit in units.items()}
subgraphs = (replace(s, decision=decisions[s.id]) for s in plan.subgraphs)
plan = replace(plan, subgraphs=tuple(subgraphs))
model = layoutsel.compile_plan(network(1), plan, units=["cpu", "opencl"])
x, want = image(), expected(network(1), image())
with model.worker() as first, model.worker() as second:
    taps = first.run("trunk", {"input.0": x}).result(60)
    futures = [w.run(name, taps) for name, w in zip(BRANCHES, (first, second))]
    results = {k: v for future in futures for k, v in future.result(60).items()}
for got, one in zip([*model(x), results["output.0"], results["output.1"]], [*want, *want]):
    np.testing.assert_allclose(got, one, rtol=1e-4, atol=1e-5)
print("equal")
"""


def test_stages_on_two_devices(two):
    tests = Path(__file__).parents[1]
    program = f"import sys; sys.path[:0] = {[str(tests.parent), str(tests)]!r}\n{STAGES}"
    assert "equal" in python(program, devices=two)
