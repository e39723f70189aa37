"""Planning for another machine: its file decides, nothing is measured, nothing is built."""

from __future__ import annotations

import json

import pytest
from command import refused, succeed

import layoutsel
from layoutsel.compile.cost_sources import CostSources
from layoutsel.compile.make_plan import best_plan, priced_problem
from layoutsel.compile.measuring import cost_model
from layoutsel.compile.offers import Offers
from layoutsel.compile.session import Session
from layoutsel.cost.scopes import kernel_of
from layoutsel.cost.store import Store, Timing
from tvm_passes.errors import LayoutselError

MACHINE = {
    "machine": {
        "cpu": "a modelled one",
        "cores": 2,
        "isa": ["avx2", "fma", "avx512f"],
        "caches": {"L2": 1 << 20},
        "memory_gib": 16,
    },
    "peaks": {
        "threads": 2,
        "gflops": 200.0,
        "cache_gbps": 90.0,
        "memory_gbps": 30.0,
        "cache_bytes": 2 << 20,
        "launch_us": 1.0,
    },
}


@pytest.fixture(name="machine")
def machine_fixture(tmp_path):
    file = tmp_path / "machine.json"
    file.write_text(json.dumps(MACHINE))
    return file


def test_a_plan_is_of_the_machine_that_it_is_for(model, machine, tmp_path):
    plan, cache = tmp_path / "plan.json", tmp_path / "cache.sqlite"
    succeed("plan", model, "--machine", machine, "-o", plan, "--cache", cache)
    document = json.loads(plan.read_text())
    session = Session.open(str(model), machine=machine, cache=cache)
    assert document["machine"] == CostSources(session).profile.machine.fingerprint
    assert document["machine"] != Session.open(str(model)).context.machine
    assert document["threads"] == session.threads == 2
    assert {s["source"] for s in document["subgraphs"]} == {"learned"}
    succeed("explain", plan)
    succeed("explain", plan, "--model", model, "--machine", machine)
    with cost_model(Offers.of(session), "roofline") as costs:
        assert costs.store.count() == 0


def test_such_a_plan_is_built_nowhere_else(model, machine, tmp_path):
    plan = tmp_path / "plan.json"
    succeed("plan", model, "--machine", machine, "-o", plan, "--cost", "roofline")
    line = refused("compile", model, "--plan", plan, "-o", tmp_path / "x.so")
    assert "another machine" in line
    assert not (tmp_path / "x.so").exists()
    session = Session.open(str(model), machine=machine)
    problem = priced_problem(Offers.of(session), "roofline")
    made = best_plan(session, problem)
    with pytest.raises(LayoutselError, match=r"cannot build for another machine .*a modelled one"):
        layoutsel.api.finish(session, made, problem)


@pytest.mark.parametrize("cost", ["measured", "hybrid"])
def test_nothing_is_measured_for_it(model, machine, tmp_path, cost):
    cache = tmp_path / "cache.sqlite"
    line = refused("plan", model, "--machine", machine, "--cost", cost, "--cache", cache)
    assert "nothing is measured here" in line
    assert "candidates, such as first as " in line


def test_what_was_measured_there_is_used(model, machine, tmp_path):
    cache = tmp_path / "cache.sqlite"
    session = Session.open(str(model), machine=machine, cache=cache, units=["cpu"])
    offers = Offers.of(session)
    with Store(session.context, cache) as store:
        for subgraph in session.graph.subgraphs:
            for number, decision in enumerate(offers.candidates[subgraph.id].decisions):
                timing = Timing(us=7.0 + number, spread_us=0.1, runs=9)
                work = offers.asked(subgraph, decision)
                store.put(work.key, decision, timing, kernel_of(work))
    options = ("--machine", machine, "--cache", cache, "--units", "cpu")
    for cost in ("measured", "hybrid", "learned"):
        plan = tmp_path / f"{cost}.json"
        succeed("plan", model, "-o", plan, "--cost", cost, *options)
        document = json.loads(plan.read_text())
        assert {subgraph["source"] for subgraph in document["subgraphs"]} == {"measured"}
        # The first candidate is the fastest, and takes a little more within a plan.
        assert all(7 < subgraph["cost_us"] < 8 for subgraph in document["subgraphs"])
    assert "nothing is measured here" in refused("plan", model, "--cost", "measured", *options[:4])


@pytest.mark.parametrize(
    ("devices", "expected"),
    [
        ({"npu": {}}, "cannot read device 'npu': expected one of llvm, cuda, opencl"),
        ({"cuda/0": {}}, "cannot read device 'cuda/0': expected one of llvm, cuda, opencl"),
        ({"cuda/1": {"target": "nvidia/nothing"}}, "device 'cuda/1' of the machine: got target"),
        ({"cuda": {"target": "nvidia/nothing"}}, "got target 'nvidia/nothing'"),
        ({"cuda": {"target": "opencl"}}, "got a target of kind 'opencl'; expected 'cuda'"),
    ],
)
def test_a_device_that_no_unit_is_for_is_refused(model, machine, devices, expected):
    described = {unit: device(**changed) for unit, changed in devices.items()}
    machine.write_text(json.dumps({**MACHINE, "devices": described}))
    assert expected in refused("plan", model, "--machine", machine)


def test_its_devices_take_part(model, machine, tmp_path):
    described = {"opencl": device(target="opencl", launch_us=0.1, link_us=0.1)}
    machine.write_text(json.dumps({**MACHINE, "devices": described}))
    plan = tmp_path / "plan.json"
    text = succeed("plan", model, "--machine", machine, "-o", plan, "--pin", "first=opencl")
    document = json.loads(plan.read_text())
    first = document["subgraphs"][0]
    assert first["decision"].startswith("opencl:")
    assert first["source"] == "roofline"
    assert first["spread_us"] >= first["cost_us"]
    assert any(b["kind"] == "copy" and b["destination"] == "opencl" for b in document["boundaries"])
    assert " copies, " in text
    assert "roofline" in succeed("explain", plan, "--subgraph", first["id"])


def test_a_machine_without_the_device_refuses_its_unit(model, machine):
    line = refused("plan", model, "--machine", machine, "--units", "cpu,opencl")
    assert "no target of kind 'opencl' is named" in line


def test_threads_are_those_of_its_peaks(model, machine):
    line = refused("plan", model, "--machine", machine, "--threads", 7)
    assert "got 7 threads; expected 2" in line


def test_a_broken_file_is_one_line(model, machine):
    machine.write_text(machine.read_text()[:-9])
    assert "valid JSON" in refused("plan", model, "--machine", machine)
    assert "no such file" in refused("plan", model, "--machine", machine.parent / "absent.json")


def device(**changed):
    return {
        "name": "a card",
        "compute_units": 100,
        "clock_mhz": 1500.0,
        "gflops": 15000.0,
        "memory_gbps": 1200.0,
        "launch_us": 5.0,
        "link_gbps": 20.0,
        "link_us": 10.0,
        **changed,
    }
