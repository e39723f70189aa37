"""What the first OpenCL device can do, measured in a process of its own and remembered."""

import itertools
import json

import pytest
from on_opencl import needs_device

from layoutsel.compile.cost_sources import CostSources
from layoutsel.compile.make_plan import priced_problem
from layoutsel.compile.offers import Offers
from layoutsel.compile.session import Session
from layoutsel.cost import device_peaks as module
from layoutsel.cost import link_probing
from layoutsel.cost.device_peaks import device_peaks, known_device_peaks, probe_device
from layoutsel.cost.link_probing import MeasuredLinks, known_links, machine_links
from layoutsel.cost.links import DeviceLink, Links
from tests.cli.command import succeed
from tvm_passes.devices import HOST_DEVICE, DeviceId
from tvm_passes.errors import LayoutselError
from tvm_passes.opencl import identity

OPENCL = DeviceId("", "opencl", 0)
HERE = HOST_DEVICE, OPENCL


@needs_device
def test_the_probe_is_plausible():
    found = probe_device("opencl")
    print(found)
    assert found.name == identity()
    assert 1 <= found.compute_units < 10_000
    assert 0.1 < found.gflops < 1e6
    assert 0.1 < found.memory_gbps < 1e5
    assert 0.01 < found.launch_us < 1e4


@needs_device
def test_links_are_measured_once(tmp_path, monkeypatch):
    identities = {OPENCL: identity()}
    assert known_links(identities, folder=tmp_path) == ()
    links = machine_links(identities, folder=tmp_path)
    assert {(link.source, link.destination) for link in links} == {HERE, HERE[::-1]}
    for link in links:
        assert 0.05 < link.gbps < 1e4
        assert 0.01 < link.latency_us < 1e4
    monkeypatch.setattr(link_probing, "probe_links", None)
    assert machine_links(identities, folder=tmp_path) == links
    assert known_links(identities, folder=tmp_path) == links


def test_a_machine_without_devices_has_no_links(tmp_path):
    assert machine_links({}, folder=tmp_path) == ()


def test_links_of_alike_devices_are_measured_on_one_pair(tmp_path, monkeypatch):
    """Three cards, two of them alike; the direct links go through both directions of each kind of pair."""
    alike = {DeviceId("", "cuda", index): name for index, name in enumerate(("a", "b", "a"))}
    asked = []

    def probe(pairs):
        asked.extend(pairs)
        links = (
            DeviceLink(source=source, destination=destination, latency_us=1.0 + n, gbps=1.0)
            for n, (source, destination) in enumerate(pairs)
        )
        return MeasuredLinks(links=tuple(links))

    monkeypatch.setattr(link_probing, "probe_links", probe)
    found = Links.of(machine_links(alike, folder=tmp_path)).table
    host, (first, other, third) = HOST_DEVICE, alike
    assert set(found) == set(itertools.permutations((host, first, other, third), 2))
    assert set(asked) == {
        *((host, first), (first, host), (host, other), (other, host)),
        *((first, other), (other, first), (first, third)),
    }
    assert found[host, third].latency_us == found[host, first].latency_us
    assert found[third, first].latency_us == found[first, third].latency_us
    assert found[other, third].latency_us == found[other, first].latency_us
    assert found[host, other].latency_us != found[host, first].latency_us


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
    links = Links.of(machine_links(session.identities))
    copy_us = links.copy_us(*HERE, first.bytes)
    assert first.copy_us["host", "opencl"] == pytest.approx(copy_us)


@needs_device
def test_doctor_shows_what_was_measured():
    device_peaks("opencl", identity())
    machine_links({OPENCL: identity()})
    report = json.loads(succeed("doctor", "--json"))["devices"]["opencl/0"]
    assert "compute units of" in report["peaks"]
    assert report["unit"] == "opencl"
    assert [link.partition(" GB/s")[0].rsplit(" ", 1)[0] for link in report["links"]] == [
        "opencl/0 > cpu/0"
    ]
    shown = " ".join(succeed("doctor").split())
    assert "device opencl/0" in shown
    assert "compute units of" in shown
