"""Speed of a machine that was measured while other processes ran."""

import os
import subprocess
import sys
import time
from dataclasses import replace

import pytest

from layoutsel.cost import peaks, probing
from layoutsel.cost.peaks import MachinePeaks, machine_peaks
from layoutsel.documents import load_json
from tvm_passes.errors import LayoutselError

IDLE = MachinePeaks(threads=2, gflops=200, cache_gbps=100, memory_gbps=20, cache_bytes=1 << 20)
BUSY = replace(IDLE, gflops=40, cpu_share=0.2)


@pytest.fixture
def probes(monkeypatch):
    """Answers of the probe, in order; each is taken once."""
    answers = []
    monkeypatch.setattr(peaks, "probe", lambda threads: answers.pop(0))
    return answers


def test_the_speed_of_a_busy_machine_is_measured_again_later(tmp_path, probes, caplog):
    probes += [BUSY, IDLE]
    assert machine_peaks(2, folder=tmp_path) == BUSY
    assert "other processes took 80 %" in caplog.text
    assert machine_peaks(2, folder=tmp_path) == BUSY, "a busy machine is not probed at each plan"
    (file,) = tmp_path.iterdir()
    hour_ago = time.time() - 3600
    os.utime(file, (hour_ago, hour_ago))
    assert machine_peaks(2, folder=tmp_path) == IDLE
    assert load_json(file)["gflops"] == 200
    os.utime(file, (hour_ago, hour_ago))
    assert machine_peaks(2, folder=tmp_path) == IDLE, "an idle machine is measured once"


def test_the_speed_is_that_of_the_machine_whatever_the_user_has_set(monkeypatch):
    """OPENBLAS_CORETYPE=Haswell has AVX2 products on a machine with AVX-512: half of its speed."""
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Haswell")
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    code = "import json, os; print(json.dumps({k: v for k, v in os.environ.items() if '_' in k}))"
    seen = {}

    def ask(_code, what, environment):
        seen.update(probing.ask(code, what, environment))
        raise LayoutselError("seen")

    monkeypatch.setattr(peaks, "ask", ask)
    with pytest.raises(LayoutselError, match="seen"):
        peaks.probe(1)
    assert "OPENBLAS_CORETYPE" not in seen
    assert seen["OMP_NUM_THREADS"] == seen["OPENBLAS_NUM_THREADS"] == "1"


@pytest.fixture
def one_core():
    """Limits this process and its child processes to one core."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    yield
    os.sched_setaffinity(0, before)


def test_the_probe_sees_other_processes(one_core):
    loop = [sys.executable, "-c", "while True: pass"]
    # A session each: Linux shares a core between sessions first (autogroups).
    others = [subprocess.Popen(loop, start_new_session=True) for _ in range(3)]
    try:
        share = peaks.probe(1).cpu_share
    finally:
        for other in others:
            other.kill()
            other.wait()
    assert share < 0.6


def test_more_threads_than_cores_are_no_other_processes(one_core):
    assert peaks.probe(4).cpu_share > 0.5 * peaks.probe(1).cpu_share


def test_a_file_that_another_process_deletes_is_measured_again(tmp_path, probes, monkeypatch):
    monkeypatch.setattr(probing, "kept", lambda *_: BUSY)
    probes.append(IDLE)
    assert machine_peaks(2, folder=tmp_path) == IDLE


@pytest.mark.parametrize("share", [-0.1, 1.1, float("nan")])
def test_an_impossible_share_is_refused(share):
    with pytest.raises(LayoutselError, match="expected a share from 0 to 1"):
        replace(IDLE, cpu_share=share)
