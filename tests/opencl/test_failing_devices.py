"""Devices that run out of memory, build no kernel or are missing: named with the sub-graph, or done without."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from on_opencl import needs_device, python
from onnx import TensorProto, helper, numpy_helper

import layoutsel
from layoutsel.device.artifact_header import devices_of
from layoutsel.device.device_errors import Watch
from layoutsel.runtime.arrays import to_tensor
from layoutsel.runtime.artifact import ArtifactError, read
from tests.cli.command import layoutsel as command
from tests.cli.command import refused, small_model, succeed
from tvm_passes.opencl import plugin

POCL = "Portable Computing Language"
needs_pocl = pytest.mark.skipif(
    not plugin.devices() or POCL not in plugin.identity(),
    reason="no PoCL (Debian: pocl-opencl-icd): other drivers have no such limits",
)
pytestmark = [needs_device, needs_pocl]

SIDE = 8300
"""A square of it in f32 is more than a quarter of PoCL's least memory, 1 GiB: no buffer of it may be larger."""

FAILURES: Mapping[str, tuple[Mapping[str, str], str]] = {
    "memory": (
        {"POCL_MEMORY_LIMIT": "1"},
        "sub-graph outer (matmul: 'outer') failed on opencl:0 ({name}): out of memory (275.6 MB requested, the device "
        "has 1,073.7 MB): no room for a buffer of ",
    ),
    "build": (
        {"POCL_EXTRA_BUILD_FLAGS": "-bogus", "POCL_CACHE_DIR": "{fresh}"},
        "sub-graph outer (matmul: 'outer') failed on opencl:0 ({name}): the driver does not build its kernel: ",
    ),
    "unmeasured": (
        {"POCL_EXTRA_BUILD_FLAGS": "-bogus", "XDG_CACHE_HOME": "{fresh}"},
        "cannot measure the device",
    ),
    "missing": (
        {"OCL_ICD_VENDORS": "{fresh}"},
        "needs the unit 'opencl': no driver finds a device",
    ),
}
"""What makes a process's device fail in earnest, and what is said of it."""

PINS = ("outer=opencl", "before=cpu", "mean=cpu")


@pytest.fixture(params=["memory", "build", "missing"])
def failure(request, tmp_path) -> str:
    """What may happen to a compiled model."""
    return request.param


def environment(failure: str, folder: Path) -> dict[str, str]:
    """Where `failure` happens."""
    fresh = folder / "fresh"
    fresh.mkdir(exist_ok=True)
    return {name: value.format(fresh=fresh) for name, value in FAILURES[failure][0].items()}


def message(failure: str) -> str:
    """What is said of it."""
    name = plugin.devices()[0].partition("(")[2].removesuffix(")")
    return FAILURES[failure][1].format(name=name)


@pytest.fixture(scope="module")
def path(tmp_path_factory) -> Path:
    """Two vectors' outer product, then the mean of each row: little data around much."""
    row = np.random.default_rng(0).random((1, SIDE)).astype(np.float32)
    nodes = [
        helper.make_node("Relu", ["x"], ["r"], name="before"),
        helper.make_node("MatMul", ["r", "w"], ["m"], name="outer"),
        helper.make_node("ReduceMean", ["m"], ["y"], name="mean", axes=[1], keepdims=1),
    ]
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [SIDE, 1]) for name in "xy")
    graph = helper.make_graph(nodes, "outer", [x], [y], [numpy_helper.from_array(row, "w")])
    opsets = [helper.make_opsetid("", 17)]
    path = tmp_path_factory.mktemp("model") / "outer.onnx"
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), path)
    return path


def compiled(path: Path, fallback: str | None, pins: tuple[str, ...] = PINS):
    """On CPU and device, as pinned."""
    return layoutsel.optimize(
        str(path),
        units=["cpu", "opencl"],
        pins=pins,
        threads=2,
        cost="roofline",
        verify_speed=False,
        cache=path.parent / "cache.sqlite",
        fallback=fallback,
    )


@pytest.fixture(scope="module")
def guarded(path) -> Path:
    """The model compiled with a fallback."""
    return compiled(path, "cpu").save(path.parent / "guarded.so")


@pytest.fixture(scope="module")
def unguarded(path) -> Path:
    """And without."""
    return compiled(path, None).save(path.parent / "unguarded.so")


@pytest.fixture(scope="module")
def values() -> np.ndarray:
    """An input."""
    return np.random.default_rng(1).standard_normal((SIDE, 1)).astype(np.float32)


def expected(path: Path, value: np.ndarray) -> np.ndarray:
    """What ONNX Runtime computes."""
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(None, {"x": value})[0]


def ran(
    artifact: Path, value: np.ndarray, folder: Path, *options: object, **env: str
) -> tuple[np.ndarray, list[str]]:
    """What `layoutsel run` computes, and its lines on standard error."""
    np.save(folder / "x.npy", value)
    given = ("--input", f"x={folder / 'x.npy'}", "--output-dir", folder, "--repeat", 1)
    done = command("run", artifact, *given, *options, **env)
    assert done.returncode == 0, done.stderr
    return np.load(folder / "y.npy"), done.stderr.splitlines()


def test_an_error_names_device_and_subgraph(unguarded, failure, tmp_path):
    line = refused("run", unguarded, run=partial(command, **environment(failure, tmp_path)))
    assert message(failure) in line
    assert "--fallback cpu" in line


def test_with_debug_the_drivers_own_error_is_shown(unguarded, tmp_path):
    done = command("--debug", "run", unguarded, **environment("memory", tmp_path))
    assert done.returncode == 2
    assert "The above exception was the direct cause" in done.stderr
    assert "CL_INVALID_BUFFER_SIZE" in done.stderr


def test_with_a_fallback_the_same_call_gives_the_right_result(
    guarded, path, values, failure, tmp_path
):
    found, errors = ran(guarded, values, tmp_path, **environment(failure, tmp_path))
    np.testing.assert_allclose(found, expected(path, values), rtol=1e-4)
    (line,) = errors
    assert line.startswith("layoutsel: warning: ")
    assert message(failure) in line
    assert "host units" in line


def test_a_device_that_works_is_used(guarded, path, values, tmp_path):
    trace = tmp_path / "trace.json"
    found, errors = ran(guarded, values, tmp_path, "--trace", trace)
    assert errors == []
    np.testing.assert_allclose(found, expected(path, values), rtol=1e-4)
    assert "opencl_matmul" in trace.read_text()


def test_what_took_over_is_what_is_traced(guarded, values, tmp_path):
    trace = tmp_path / "trace.json"
    ran(guarded, values, tmp_path, "--trace", trace, **environment("memory", tmp_path))
    assert "opencl" not in trace.read_text()


def test_a_fallback_that_is_wanted_but_not_there(unguarded):
    assert "compile it with --fallback cpu" in refused("run", unguarded, "--fallback", "cpu")
    assert "'gpu': expected cpu" in refused("run", unguarded, "--fallback", "gpu")


SEVERAL_THREADS = """
import sys, numpy as np, layoutsel
from concurrent.futures import ThreadPoolExecutor
model = layoutsel.load({artifact!r})
x = np.random.default_rng(1).standard_normal(model.inputs[0].shape).astype(np.float32)
with ThreadPoolExecutor(4) as pool:
    found = list(pool.map(lambda factor: model(factor * x), [1, 2, 3, 4]))
again = model.timed_call(model.bind(x))()
assert model.running is not model and not model.running.uses_devices
for factor, value in enumerate(found, 1):
    np.testing.assert_allclose(value, factor * found[0], rtol=1e-4)
np.save({result!r}, found[0])
"""


def test_calls_of_several_threads_are_answered_once_the_device_failed(
    guarded, path, values, tmp_path
):
    result = str(tmp_path / "y.npy")
    program = SEVERAL_THREADS.format(artifact=str(guarded), result=result)
    python(program, **environment("memory", tmp_path))
    np.testing.assert_allclose(np.load(result), expected(path, values), rtol=1e-4)


COMPILING = ("--units", "cpu,opencl", "--cost", "roofline", "--no-verify-speed", "--threads", 2)


def compiling(path: Path, output: Path, *options: object) -> tuple[object, ...]:
    """The command that compiles as :func:`compiled` does."""
    pins = [word for pin in PINS for word in ("--pin", pin)]
    cache = ("--cache", path.parent / "cache.sqlite")
    return ("compile", path, "-o", output, *COMPILING, *cache, *pins, *options)


def test_a_device_that_fails_while_compiling_is_an_error(path, tmp_path):
    output = tmp_path / "none.so"
    line = refused(
        *compiling(path, output), run=partial(command, **environment("memory", tmp_path))
    )
    assert message("memory") in line
    assert not output.exists()


@pytest.mark.usefixtures("unguarded")  # so that the device's peaks are known
def test_what_a_driver_does_not_build_goes_to_the_cpu(path, values, tmp_path):
    output = tmp_path / "outer.so"
    run = partial(command, **environment("build", tmp_path))
    done = run(*compiling(path, output))
    assert done.returncode == 0, done.stderr
    assert message("build") in done.stderr
    assert "outer runs on the CPU instead" in done.stderr
    model = layoutsel.load(output)
    assert model.header["fallbacks"] == {"outer": "cpu:NCHW"}
    np.testing.assert_allclose(model(values), expected(path, values), rtol=1e-4)


@pytest.mark.parametrize(
    ("failure", "said"),
    [
        ("unmeasured", "cannot measure the device of 'opencl'"),
        ("memory", "outer runs on the CPU instead"),
        pytest.param(
            "missing",
            "unit 'opencl' is left out, with the pins to it: no driver finds a device",
            marks=pytest.mark.nightly,
        ),
    ],
)
@pytest.mark.usefixtures("unguarded")
def test_compiling_goes_on_without(path, values, tmp_path, failure, said):
    output = tmp_path / "outer.so"
    command_line = compiling(path, output, "--fallback", "cpu")
    done = command(*command_line, **environment(failure, tmp_path))
    assert done.returncode == 0, done.stderr
    assert said in done.stderr
    model = layoutsel.load(output)
    assert not model.uses_devices
    assert all(check["rel_l2_err"] < 1e-5 for check in model.checks)
    np.testing.assert_allclose(model(values), expected(path, values), rtol=1e-4)


@pytest.mark.nightly
def test_a_plan_of_a_missing_device_is_made_anew(tmp_path):
    path, plan, output = (tmp_path / name for name in ("small.onnx", "plan.json", "small.so"))
    small_model(path)
    options = {"pins": ["first=opencl"], "threads": 2, "cost": "roofline"}
    layoutsel.plan(str(path), units=["cpu", "opencl"], **options).save(plan)
    arguments = ("compile", path, "--units", "cpu,opencl", "--plan", plan, "-o", output)
    missing = partial(command, **environment("missing", tmp_path))
    assert "unit 'opencl' cannot be used here" in refused(*arguments, run=missing)
    done = missing(*arguments, "--fallback", "cpu")
    assert done.returncode == 0, done.stderr
    assert "the plan needs opencl, which is missing: planning without it" in done.stderr
    value = np.random.default_rng(3).standard_normal((1, 16, 12, 12)).astype(np.float32)
    np.testing.assert_allclose(layoutsel.load(output)(value), expected(path, value), rtol=1e-4)


@pytest.mark.nightly
def test_weights_without_room_are_the_readers(tmp_path):
    """More of them than a buffer holds: that is found when the model is loaded."""
    side = 8200
    weight = np.eye(side, dtype=np.float32)
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"], name="wide")]
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, side]) for name in "xy")
    graph = helper.make_graph(nodes, "wide", [x], [y], [numpy_helper.from_array(weight, "w")])
    path = tmp_path / "wide.onnx"
    opsets = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), path)
    artifact = compiled(path, "cpu", pins=("wide=opencl",)).save(tmp_path / "wide.so")
    value = np.random.default_rng(2).standard_normal((1, side)).astype(np.float32)
    found, (line,) = ran(artifact, value, tmp_path, **environment("memory", tmp_path))
    np.testing.assert_allclose(found, value, rtol=1e-6)
    assert "sub-graph wide (matmul: 'wide') failed on opencl:0" in line
    assert "the fallback model of host units is loaded instead" in line


def test_the_artifact_tells_of_its_fallback(guarded, unguarded):
    told = succeed("explain", guarded)
    assert "without its devices: 3 on cpu:NCHW, predicted " in told
    assert "without its devices: verified 'y' against ONNX Runtime" in told
    assert "without its devices" not in succeed("explain", unguarded)


def test_what_was_loaded_saves_with_its_fallback(guarded, values, path, tmp_path):
    again = layoutsel.load(guarded).save(tmp_path / "again.so")
    found, _ = ran(again, values, tmp_path, **environment("missing", tmp_path))
    np.testing.assert_allclose(found, expected(path, values), rtol=1e-4)


def test_a_damaged_fallback_is_noticed_when_it_is_needed(guarded, tmp_path):
    data = bytearray(guarded.read_bytes())
    place = read(guarded).header["fallback"]["library"]
    for at in (place["offset"], place["offset"] + place["bytes"] - 1):
        data[at] ^= 0xFF
    path = tmp_path / "damaged.so"
    path.write_bytes(data)
    assert layoutsel.load(path).uses_devices
    done = command("run", path, **environment("missing", tmp_path))
    assert done.returncode == 2
    assert "the code of its fallback fails its checksum" in done.stderr.splitlines()[-1]


@pytest.mark.parametrize("keep", [0.3, 0.6, 0.9, 0.999])
def test_a_truncated_artifact_with_a_fallback_is_refused(guarded, tmp_path, keep):
    data = guarded.read_bytes()
    path = tmp_path / "cut.so"
    path.write_bytes(data[: int(keep * len(data))])
    with pytest.raises(ArtifactError, match=r"truncated|damaged"):
        read(path)


class _Diary(Watch):
    """Keeps every place that it was at."""

    def __init__(self, *arguments: object) -> None:
        super().__init__(*arguments)  # type: ignore[arg-type]
        self.places: list[str] = []

    def __call__(self, function: object, name: str, before: bool, *arguments: object) -> None:
        super().__call__(function, name, before, *arguments)
        if before and self.place is not None:
            self.places += self.place.labels


def alike(path: Path) -> Path:
    """Three equal convolutions in a row, and what follows a reshape."""
    weight = np.random.default_rng(0).standard_normal((8, 8, 1, 1)).astype(np.float32)
    tensors = ["x", "t0", "t1", "t2"]
    nodes = [
        helper.make_node("Conv", [source, "w"], [result], name=f"conv_{result}")
        for source, result in itertools.pairwise(tensors)
    ]
    nodes += [
        helper.make_node("Flatten", ["t2"], ["flat"], name="flatten"),
        helper.make_node("Softmax", ["flat"], ["y"], name="softmax"),
    ]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 8, 6, 6])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 288])
    graph = helper.make_graph(nodes, "alike", [x], [y], [numpy_helper.from_array(weight, "w")])
    opsets = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), path)
    return path


@pytest.mark.parametrize("host", ["conv_t1", "flatten", "none"])
def test_every_step_on_a_device_is_known_by_its_subgraph(tmp_path, host):
    """Also where sub-graphs share a kernel, and where TVM has put a reshape in a kernel's place."""
    names = ["conv_t0", "conv_t1", "conv_t2", "flatten", "softmax"]
    pins = tuple(f"{name}={'cpu' if name == host else 'opencl'}" for name in names)
    model = compiled(alike(tmp_path / "alike.onnx"), None, pins)
    devices, calls = devices_of(model.header), model.header["calls"]
    diary = _Diary(calls, devices)
    inputs = [to_tensor(value) for value in model.bind(np.ones((1, 8, 6, 6), np.float32))]
    model._instrumented(diary)(*inputs)
    wanted = [
        label
        for function, label in calls
        if function.startswith("opencl") and "reshape" not in function
    ]
    assert len({function for function, _ in calls}) < len(calls)
    assert [label for label, _ in itertools.groupby(diary.places)] == wanted
