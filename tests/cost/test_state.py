"""The machine's present speed: relative to its peaks, probed at most once a minute, applied by what a run waits for."""

from __future__ import annotations

import os
import time

import pytest

from layoutsel.cost import state
from layoutsel.cost.peaks import MachinePeaks
from layoutsel.cost.state import MachineState, machine_state
from tvm_passes.errors import LayoutselError

PEAKS = MachinePeaks(
    threads=2, gflops=100.0, cache_gbps=50.0, memory_gbps=20.0, cache_bytes=1 << 20
)


@pytest.fixture
def probed(monkeypatch):
    """Rates that the probe finds, in turn; how many it was asked for."""
    answers: list[tuple[float, float]] = []

    def probe(threads, budget_s, *, at_best):
        assert not at_best
        gflops, memory_gbps = answers.pop(0)
        return MachinePeaks(
            threads=threads,
            gflops=gflops,
            cache_gbps=50.0,
            memory_gbps=memory_gbps,
            cache_bytes=1 << 20,
        )

    monkeypatch.setattr(state, "probe", probe)
    return answers


def test_rates_are_relative_to_the_peaks_and_never_above_them(probed, tmp_path):
    probed.append((120.0, 5.0))
    assert machine_state(PEAKS, tmp_path) == MachineState(compute=1.0, memory=0.25)


def test_a_state_holds_for_a_minute(probed, tmp_path):
    probed += [(100.0, 20.0), (50.0, 20.0)]
    first = machine_state(PEAKS, tmp_path)
    assert machine_state(PEAKS, tmp_path) == first
    (file,) = tmp_path.glob("machine-state-*.json")
    before = time.time() - 61
    os.utime(file, (before, before))
    assert machine_state(PEAKS, tmp_path).compute == 0.5


@pytest.mark.parametrize(("share", "expected"), [(0.0, 20.0), (1.0, 40.0), (0.5, 30.0)])
def test_a_run_slows_by_what_it_waits_for(share, expected):
    assert MachineState(compute=0.5, memory=0.25).slowed(10.0, share) == expected


@pytest.mark.parametrize("compute", [0.0, 1.01, float("nan")])
def test_an_impossible_state_is_refused(compute):
    with pytest.raises(LayoutselError, match="compute"):
        MachineState(compute=compute, memory=1.0)


def test_the_real_probe_gives_a_state(tmp_path):
    from layoutsel.cost.peaks import machine_peaks

    found = machine_state(machine_peaks(1, folder=tmp_path), tmp_path)
    assert 0 < found.compute <= 1
    assert 0 < found.memory <= 1
