"""What the first OpenCL device can do, measured in a process of its own and remembered."""

import pytest
from on_opencl import needs_device

from layoutsel.compile.cost_sources import CostSources
from layoutsel.compile.make_plan import priced_problem
from layoutsel.compile.offers import Offers
from layoutsel.compile.session import Session
from layoutsel.cost import device_peaks as module
from layoutsel.cost.device_peaks import device_peaks, known_device_peaks, probe_device
from tests.cli.command import succeed
from tvm_passes.errors import LayoutselError
from tvm_passes.opencl import identity


@needs_device
def test_the_probe_is_plausible():
    found = probe_device("opencl")
    print(found)
    assert found.name == identity()
    assert 1 <= found.compute_units < 10_000
    assert 0.1 < found.gflops < 1e6
    assert 0.1 < found.memory_gbps < 1e5
    assert 0.05 < found.link_gbps < 1e4
    assert 0.01 < found.launch_us < 1e4
    assert 0.01 < found.link_us < 1e4


@needs_device
def test_peaks_are_measured_once(tmp_path, monkeypatch, caplog):
    peaks = device_peaks("opencl", identity())
    calls = []
    monkeypatch.setattr(module, "probe_device", lambda unit: calls.append(unit) or peaks)
    assert known_device_peaks("opencl", identity(), folder=tmp_path) is None
    for _ in range(2):
        assert device_peaks("opencl", identity(), folder=tmp_path) == peaks
    assert known_device_peaks("opencl", identity(), folder=tmp_path) == peaks
    assert calls == ["opencl"]
    assert device_peaks("opencl", "another driver", folder=tmp_path) == peaks
    assert calls == ["opencl"] * 2
    for file in tmp_path.glob("*.json"):
        file.write_text(file.read_text()[:40])
    assert device_peaks("opencl", identity(), folder=tmp_path) == peaks
    assert "measuring the machine again" in caplog.text


def test_a_device_that_is_not_there_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setenv("OCL_ICD_VENDORS", str(tmp_path))
    with pytest.raises(LayoutselError, match="cannot measure the device of 'opencl'"):
        probe_device("opencl")


@needs_device
def test_sessions_with_a_device_know_its_peaks(tmp_path):
    session = Session.open("light:squeezenet", units=["cpu", "opencl"], cache=tmp_path / "m.sqlite")
    peaks = CostSources(session).profile.devices["opencl"]
    assert peaks == device_peaks("opencl", identity())
    problem = priced_problem(Offers.of(session), "roofline")
    (first,) = (tensor for tensor in problem.tensors if tensor.producer is None)
    assert first.copy_us["host", "opencl"] == pytest.approx(peaks.copy_us(first.bytes))


@needs_device
def test_doctor_shows_what_was_measured():
    device_peaks("opencl", identity())
    assert "compute units of" in " ".join(succeed("doctor").split())
