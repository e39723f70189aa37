"""Bundles there and back, through processes in an environment that has TVM's runtime and nothing else."""

from __future__ import annotations

import importlib.metadata
import json
import os
import shutil
import signal
import struct
import subprocess
import sys
import tarfile
import time
import zipfile
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from command import layoutsel, refused, small_model, succeed

from layoutsel.bundling.runtime_wheel import MOST_BYTES
from layoutsel.device import results as results_of

ARM = "llvm -mtriple=aarch64-linux-gnu -mcpu=cortex-a72"
ARM_COMPILER = "aarch64-linux-gnu-g++"


def _site(environment: Path) -> Path:
    (site,) = environment.glob("lib/python*/site-packages")
    return site


def _installed(package: str, site: Path) -> None:
    """Copy an installed package as it is, without what it depends on."""
    for file in importlib.metadata.files(package) or ():
        source = Path(str(file.locate()))
        if ".." not in file.parts and source.is_file() and "__pycache__" not in file.parts:
            (site / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, site / file)


@pytest.fixture(scope="module")
def device(tmp_path_factory) -> Path:
    """An environment with the kit, the package that it asks for, and no more."""
    folder = tmp_path_factory.mktemp("device")
    text = succeed("runtime", "-o", folder)
    (wheel,) = folder.glob("layoutsel_measure-*.whl")
    assert str(wheel) in text
    environment = folder / "environment"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", environment], check=True)
    with zipfile.ZipFile(wheel) as kit:
        kit.extractall(_site(environment))
    for package in ("apache-tvm-ffi", "typing-extensions"):
        _installed(package, _site(environment))
    return environment


def on_device(device: Path, *arguments: object, code: str = "") -> subprocess.CompletedProcess[str]:
    """Run the runner there, or some `code`, without anything of this process's environment."""
    what = ["-c", code] if code else ["-m", "layoutsel.device"]
    return subprocess.run(
        [device / "bin" / "python", *what, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=300,
        cwd=device,
        env={"HOME": str(device), "PATH": os.defpath},
        check=False,
    )


def measured(device: Path, bundle: Path, output: Path, *more: object) -> results_of.Results:
    done = on_device(device, bundle, "-o", output, *more)
    assert done.returncode == 0, done.stderr
    return results_of.load(output)


def declined(device: Path, *arguments: object) -> str:
    """The one line with which the runner refuses."""
    done = on_device(device, *arguments)
    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    (line,) = done.stderr.splitlines()
    assert line.startswith("layoutsel-measure: error: ")
    return line


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> Path:
    return small_model(tmp_path_factory.mktemp("tiny") / "tiny.onnx", channels=8)


@pytest.fixture(scope="module")
def bundle(tiny, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("bundle") / "bundle.tar"
    text = succeed("bundle", tiny, "-o", path, "--units", "cpu", "--threads", 2)
    assert f"written to {path}" in text
    return path


@pytest.fixture(scope="module")
def results(device, bundle, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("results") / "results.json"
    found = measured(device, bundle, path)
    assert found.complete
    return path


def test_the_device_has_little(device):
    for absent in ("numpy", "tvm", "typer", "onnx", "layoutsel.compile.session"):
        assert on_device(device, code=f"import {absent}").returncode == 1
    size = sum(file.stat().st_size for file in _site(device).rglob("*") if file.is_file())
    assert size < MOST_BYTES
    libraries = [file.name for file in _site(device).rglob("*.so*")]
    assert not any("compiler" in name or "LLVM" in name for name in libraries)


def test_everything_is_timed(bundle, results):
    found = results_of.load(results)
    with tarfile.open(bundle) as archive:
        manifest = json.load(archive.extractfile("bundle.json"))
    assert len(found.candidates) == len(manifest["candidates"]) > 5
    assert len(found.boundaries) == len(manifest["boundaries"]) > 5
    assert all(one.timing and one.timing.us > 0 for one in found.candidates)
    assert found.machine.gflops > 0
    assert "weights" in manifest["candidates"][0]["program"]
    assert not any(w["data"] for w in manifest["reference"]["weights"])  # seeds travel, not values


def test_there_and_back(device, tiny, results, tmp_path):
    """Bundle → measure → import → plan → bundle of the plan → the results of ONNX Runtime."""
    cache, plan = tmp_path / "cache.sqlite", tmp_path / "plan.json"
    text = succeed("profile", "--import", results, "--cache", cache)
    machine = Path(text.split("--machine ")[1].strip())
    of_machine = ("--machine", machine, "--units", "cpu")
    succeed(
        *("plan", tiny, *of_machine, "--cost", "measured", "--cache", cache, "-o", plan),
        run=layoutsel,
    )
    planned = json.loads(plan.read_text())
    assert {one["source"] for one in planned["subgraphs"]} == {"measured"}
    times = {
        (one.key, str(one.decision)): one.timing for one in results_of.load(results).candidates
    }
    for one in planned["subgraphs"]:
        # In a plan, small tensors that other cores wrote take less than a microsecond more.
        assert any(0 < one["cost_us"] - timing.us < 1 for timing in times.values())

    deployed = tmp_path / "deploy.tar"
    succeed("bundle", tiny, "--plan", plan, *of_machine, "-o", deployed)
    found = measured(device, deployed, tmp_path / "deployed.json").deployed
    assert found is not None
    assert found.timing.runs >= 5
    assert {check.reference for check in found.checks} == {"float64"}
    assert all(check.rel_l2_err <= check.tolerance for check in found.checks)
    assert "tiny: " in succeed("profile", "--import", tmp_path / "deployed.json", "--cache", cache)

    x = np.random.default_rng(5).standard_normal((1, 8, 12, 12)).astype("float32")
    (tmp_path / "x").write_bytes(x.tobytes())
    code = f"""
import sys
from pathlib import Path
import layoutsel.device
from layoutsel.device.tensors import bytes_of, tensor_of
model = layoutsel.device.load({str(deployed)!r})
y = model(tensor_of(Path({str(tmp_path / "x")!r}).read_bytes(), (1, 8, 12, 12), "float32"))
Path({str(tmp_path / "y")!r}).write_bytes(bytes_of(y))
assert "numpy" not in sys.modules
"""
    done = on_device(device, code=code)
    assert done.returncode == 0, done.stderr
    y = np.frombuffer((tmp_path / "y").read_bytes(), "float32")
    session = onnxruntime.InferenceSession(onnx.load(tiny).SerializeToString())
    np.testing.assert_allclose(y, session.run(None, {"x": x})[0].ravel(), rtol=1e-4, atol=1e-6)


@pytest.mark.nightly
def test_ctrl_c_keeps_what_is_known(device, bundle, tmp_path):
    output = tmp_path / "results.json"
    process = subprocess.Popen(
        [device / "bin" / "python", "-m", "layoutsel.device", bundle, "-o", output],
        stderr=subprocess.PIPE,
        text=True,
        cwd=device,
        env={"HOME": str(device), "PATH": os.defpath},
    )
    for line in process.stderr:
        if " 3 of " in line:
            break
    process.send_signal(signal.SIGINT)
    rest = process.stderr.read()
    assert process.wait(timeout=60) == 130
    assert "the same command continues" in rest
    begun = results_of.load(output)
    assert not begun.complete
    assert len(begun.candidates) >= 3
    finished = measured(device, bundle, output)
    assert finished.complete
    assert finished.candidates[: len(begun.candidates)] == begun.candidates
    start = time.monotonic()
    assert measured(device, bundle, output) == finished
    assert time.monotonic() - start < 60


def test_what_the_runner_refuses(device, bundle, results, tiny, tmp_path):
    output = tmp_path / "results.json"
    assert "no such file" in declined(device, tmp_path / "none.tar", "-o", output).lower()
    assert "not a bundle" in declined(device, tiny, "-o", output)
    assert "there is no directory" in declined(device, bundle, "-o", tmp_path / "no" / "r.json")
    cut = tmp_path / "cut.tar"
    cut.write_bytes(bundle.read_bytes()[:-20000])
    assert "copy it again" in declined(device, cut, "-o", output)
    other = json.loads(results.read_text())
    output.write_text(json.dumps({**other, "bundle": "0" * 64}))
    assert "the results of another bundle" in declined(device, bundle, "-o", output)
    output.write_text("nothing")
    assert "valid JSON" in declined(device, bundle, "-o", output)
    assert output.read_text() == "nothing"


def test_what_bundle_refuses(tiny, tmp_path):
    output = tmp_path / "bundle.tar"
    riscv = "llvm -mtriple=riscv64-linux-gnu"
    line = refused("bundle", tiny, "-o", output, "--target", riscv, "--threads", 2)
    assert "add --cc riscv64-linux-gnu-g++ (Debian: g++-riscv64-linux-gnu)" in line
    assert "no such compiler" in refused("bundle", tiny, "-o", output, "--cc", "none-g++")
    assert "add --threads N" in refused("bundle", tiny, "-o", output, "--target", riscv)
    line = refused("bundle", tiny, "-o", output, "--target", riscv, "--machine", "m.json")
    assert "exclude each other" in line
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(
    shutil.which(ARM_COMPILER) is None,
    reason=f"no cross compiler {ARM_COMPILER} (Debian: g++-aarch64-linux-gnu)",
)
def test_code_for_another_architecture(device, tiny, tmp_path):
    output = tmp_path / "bundle.tar"
    how = ("--target", ARM, "--threads", 2, "--cc", ARM_COMPILER)
    succeed("bundle", tiny, "-o", output, *how)
    with tarfile.open(output) as archive:
        libraries = [m for m in archive if m.name.startswith("lib/")]
        heads = [archive.extractfile(m).read(20) for m in libraries]
    assert len(heads) > 10
    assert {struct.unpack_from("<H", head, 18)[0] for head in heads} == {183}  # EM_AARCH64
    assert "was built for aarch64" in declined(device, output, "-o", tmp_path / "r.json")
