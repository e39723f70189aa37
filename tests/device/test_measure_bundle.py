"""One candidate that crashes, hangs or cannot be loaded harms no other."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import replace

import pytest
from bundles import manifest, requirements

from layoutsel.bundling.compile import Order, compile_order
from layoutsel.bundling.write import write_archive
from layoutsel.device import measure, results
from layoutsel.device.archive import opened
from layoutsel.device.manifest import BoundaryEntry, BoundaryTensor, CandidateEntry
from layoutsel.device.measure import measure_bundle
from layoutsel.device.outcome import Failure, Timing
from layoutsel.device.trial import run_trial
from tvm_passes.decision import Decision
from tvm_passes.errors import LayoutselError


def crash_or_run(trial):
    """In the child process: what the shape of the trial says."""
    what = {2: lambda: os.kill(os.getpid(), signal.SIGSEGV), 3: lambda: time.sleep(60)}
    what.get(len(trial.shape), lambda: None)()
    return run_trial(trial)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("contents")


@pytest.fixture(scope="module")
def program(folder):
    """The reference kernel, compiled."""
    order = Order(
        request={"kind": "reference"}, host=None, devices={}, folder=folder, compiler=None
    )
    (built,) = compile_order(order)
    return built


@pytest.fixture
def bundle(folder, program, tmp_path):
    (folder / "lib" / "broken.so").write_bytes(b"no library")
    lost = replace(program, file="lib/broken.so")
    names = {"broken": lost, "sound": program}
    candidates = tuple(
        CandidateEntry(key=name, decision=Decision(unit="cpu"), label=name, program=one)
        for name, one in names.items()
    )
    boundaries = tuple(
        BoundaryEntry(
            kind="transform",
            source="NCHW",
            destination="NHWC",
            tensor=BoundaryTensor(shape=(1,) * rank, dtype="float32", bytes=4),
            label=f"rank {rank}",
            places=(),
            programs=(program,),
        )
        for rank in (1, 2, 3, 4)
    )
    described = manifest(
        candidates=candidates,
        boundaries=boundaries,
        reference=program,
        requires=requirements(threads=1),
    )
    write_archive(folder, described, tmp_path / "bundle.tar")
    with opened(tmp_path / "bundle.tar") as found:
        yield found


def test_failures_are_results(bundle, tmp_path, monkeypatch):
    monkeypatch.setattr(measure, "_TRIAL", f"{__name__}:crash_or_run")
    seen = []
    found = measure_bundle(bundle, tmp_path / "r.json", 8.0, seen.append)
    assert [type(one.outcome) for one in found.candidates] == [Failure, Timing]
    assert "no library" not in found.candidates[0].failure
    assert "broken.so" in found.candidates[0].failure
    outcomes = [one.outcome for one in found.boundaries]
    assert [type(one) for one in outcomes] == [Timing, Failure, Failure, Timing]
    assert "SIGSEGV" in outcomes[1].reason
    assert "longer than 8 s" in outcomes[2].reason
    assert [progress.done for progress in seen] == [1, 2, 3, 4, 5, 6]
    assert results.load(tmp_path / "r.json") == found
    resumed = measure._begun(bundle, tmp_path / "r.json", None)
    left = [one.label for one in measure._missing(bundle, resumed)]
    assert left == ["rank 3"]  # what ran too long is tried again


def test_a_reference_that_does_not_run_ends_it(bundle, tmp_path):
    lost = replace(bundle.manifest.reference, file="lib/broken.so")
    broken = replace(bundle, manifest=replace(bundle.manifest, reference=lost))
    with pytest.raises(LayoutselError, match="the reference kernel does not run here"):
        measure_bundle(broken, tmp_path / "r.json", 10.0, lambda _progress: None)
    assert not (tmp_path / "r.json").exists()
