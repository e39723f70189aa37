"""The roofline's formula, its probe, and the machine it speaks of."""

import dataclasses
import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layoutsel.core.workload import BoundaryTensor, Workload
from layoutsel.cost import peaks as peaks_module
from layoutsel.cost.peaks import MachinePeaks, machine_peaks, probe
from layoutsel.cost.place import Place
from layoutsel.cost.roofline import ANY, Efficiency, RooflineCost, complexity_score
from layoutsel.device.machine import this_machine, versions
from tvm_passes.decision import Decision
from tvm_passes.errors import LayoutselError

PEAKS = MachinePeaks(
    threads=2,
    gflops=400.0,
    cache_gbps=60.0,
    memory_gbps=30.0,
    cache_bytes=4 << 20,
    launch_us=1.0,
)
NHWC = Decision(unit="onednn", layout="NHWC")
WHOLE = Efficiency(compute=1.0, bandwidth=1.0)


def workload(flops=0.0, weights=0.0, activations=0.0):
    return Workload(
        key="h",
        operator="nn.conv2d",
        flops=flops,
        weight_bytes=weights,
        activation_bytes=activations,
    )


@pytest.mark.parametrize(
    ("work", "us"),
    [
        (workload(), 1.0),
        (workload(flops=4e8), 1001.0),
        (workload(weights=3e6), 101.0),
        (workload(activations=3e6), 51.0),
        (workload(activations=6e6), 201.0),  # out of cache
        (workload(weights=3e6, activations=3e6), 151.0),
        (workload(flops=4e8, weights=3e6), 1001.0),
    ],
)
def test_formula(work, us):
    assert complexity_score(work, NHWC, PEAKS, WHOLE) == pytest.approx(us)


@pytest.mark.parametrize(("repacked", "us"), [(1.5e6, 50.0), (6e6, 400.0)])
def test_weights_packed_in_each_run_are_written_and_read_again(repacked, us):
    """On top of the computing, which waits for them; from the cache where they fit."""
    work = dataclasses.replace(workload(flops=4e8), hints={str(NHWC): {"repacked_bytes": repacked}})
    assert complexity_score(work, NHWC, PEAKS, WHOLE) == pytest.approx(1001.0 + us)
    assert complexity_score(work, Decision(unit="cpu"), PEAKS, WHOLE) == pytest.approx(1001.0)


def test_efficiency_and_algorithm():
    half = Efficiency(compute=0.5, bandwidth=0.25, launches=3.0)
    assert complexity_score(workload(flops=4e8), NHWC, PEAKS, half) == pytest.approx(2003.0)
    assert complexity_score(workload(weights=3e6), NHWC, PEAKS, half) == pytest.approx(403.0)
    winograd = Decision(unit="cpu", layout="NHWC", algorithm="winograd")
    direct = dataclasses.replace(winograd, algorithm="direct")
    work = workload(flops=4e8)
    assert complexity_score(work, winograd, PEAKS, WHOLE) < complexity_score(
        work, direct, PEAKS, WHOLE
    )


@given(st.floats(0, 1e12), st.floats(0, 1e9), st.floats(0, 1e9), st.floats(1, 3))
def test_more_work_never_costs_less(flops, weights, activations, factor):
    one = complexity_score(workload(flops, weights, activations), NHWC, PEAKS, WHOLE)
    grown = workload(flops * factor, weights * factor, activations * factor)
    assert 1.0 <= one <= complexity_score(grown, NHWC, PEAKS, WHOLE)


def test_the_most_specific_efficiency_holds():
    model = RooflineCost(
        peaks=PEAKS,
        efficiencies={
            ("cpu", "NHWC"): Efficiency(compute=0.1, bandwidth=1),
            ("cpu", ANY): Efficiency(compute=0.2, bandwidth=1),
            (ANY, ANY): Efficiency(compute=0.3, bandwidth=1),
        },
    )
    for text, compute in (("cpu:NHWC", 0.1), ("cpu:NCHW", 0.2), ("gpu:NHWC", 0.3)):
        assert model.efficiency(Decision.parse(text)).compute == compute


def test_boundaries():
    model = RooflineCost(peaks=PEAKS)
    tensor = BoundaryTensor(shape=(1, 250, 10, 100), dtype="float32", bytes=10**6)
    assert model.boundary(tensor, Place("NCHW"), Place("NCHW")).us == 0
    assert model.boundary(tensor, Place("NCHW"), Place("NHWC")).us == pytest.approx(1 + 2e3 / 30)
    assert model.boundary(tensor, Place(unit="cpu"), Place(unit="cpu")).us == 0
    assert model.boundary(tensor, Place(unit="cpu"), Place(unit="onednn")).us == 1
    cost = model.subgraph(workload(flops=1e8), NHWC)
    assert cost.source == "roofline"
    assert 0 < cost.spread_us < cost.us


def test_probe_is_plausible_and_quick():
    started = time.perf_counter()
    found = probe(1)
    seconds = time.perf_counter() - started
    print(found, seconds)
    assert seconds < 10  # two on an idle machine
    assert 1 < found.gflops < 2000
    assert 0.5 < found.memory_gbps <= found.cache_gbps < 2000
    assert found.cache_bytes >= 1 << 18


def test_peaks_are_measured_once(tmp_path, monkeypatch, caplog):
    calls = []
    monkeypatch.setattr(peaks_module, "probe", lambda threads: calls.append(threads) or PEAKS)
    assert machine_peaks(2, folder=tmp_path / "cache") == PEAKS
    assert machine_peaks(2, folder=tmp_path / "cache") == PEAKS
    assert calls == [2]
    (file,) = (tmp_path / "cache").glob("*.json")
    file.write_text('{"threads": 2}')
    assert machine_peaks(2, folder=tmp_path / "cache") == PEAKS
    assert calls == [2, 2]
    assert "measuring the machine again" in caplog.text
    assert machine_peaks(2, folder=file / "not a folder") == PEAKS
    assert "cannot keep the machine's peaks" in caplog.text


def test_a_failing_probe_is_an_error():
    with pytest.raises(LayoutselError, match="cannot measure this machine"):
        probe(-1)
    with pytest.raises(LayoutselError, match="not a machine's peaks"):
        dataclasses.replace(PEAKS, gflops=0.0)


def test_fingerprint_names_the_machine():
    machine = this_machine()
    assert machine.cores >= 1
    assert machine.fingerprint == this_machine().fingerprint
    assert len(machine.fingerprint) == 16
    for change in ({"cores": 99}, {"isa": ()}, {"caches": {"L2": 1}}, {"cpu": "other"}):
        assert dataclasses.replace(machine, **change).fingerprint != machine.fingerprint
    json.dumps(dataclasses.asdict(machine))


def test_versions():
    found = versions(("numpy", "surely-not-installed"), scope="onednn")
    assert found["onednn:surely-not-installed"] == "absent"
    assert found["onednn:numpy"][0].isdigit()


def test_bfloat16_halves_the_bytes_and_a_split_does_not():
    work = workload(weights=1e6, activations=2e6)
    us = {
        precision: complexity_score(
            work, Decision(unit="cpu", layout="NHWC", precision=precision), PEAKS, WHOLE
        )
        for precision in ("f32", "bf16", "split-bf16")
    }
    assert us["bf16"] - PEAKS.launch_us == pytest.approx((us["f32"] - PEAKS.launch_us) / 2)
    assert us["split-bf16"] == us["f32"]
