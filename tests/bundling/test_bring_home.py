"""What comes back from a device is kept whole, once, under that device, and plans are made of it."""

import json
import sqlite3
from dataclasses import replace

import pytest

from layoutsel import documents
from layoutsel.bundling.bring_home import bring_home
from layoutsel.compile.versions import all_versions
from layoutsel.core.workload import BoundaryTensor, Workload
from layoutsel.cost import store as store_of
from layoutsel.cost import store_file
from layoutsel.cost.links import Links
from layoutsel.cost.logs import read_logs
from layoutsel.cost.samples import MachineProfile
from layoutsel.cost.store import Context, Store
from layoutsel.device.machine import Machine
from layoutsel.device.outcome import Failure, FailureKind, Timing
from layoutsel.device.results import (
    SCHEMA_VERSION,
    BoundaryResult,
    CandidateResult,
    DeviceFound,
    MachineFound,
    Results,
)
from tvm_passes.decision import Decision
from tvm_passes.devices import HOST_DEVICE, DeviceId
from tvm_passes.errors import LayoutselError

MACHINE = Machine(cpu="a board", cores=4, isa=("asimd",), caches={"L2": 1 << 19}, memory_gib=4)
VERSIONS = {"kernels": "abc"}
CARD = DeviceFound(identity="a card", target="opencl", compute_units=8, clock_mhz=800.0)
WORK = Workload(
    key="k",
    operator="matmul",
    flops=4e6,
    weight_bytes=4e4,
    activation_bytes=2e4,
    hints={"cpu:NCHW": {"parts": 1.0}},
)
TENSOR = BoundaryTensor(shape=(1, 16), dtype="float32", bytes=64)
LARGE = BoundaryTensor(shape=(1, 1 << 18), dtype="float32", bytes=1 << 20)
CPU, OPENCL = Decision(unit="cpu"), Decision(unit="opencl")
DEVICE = DeviceId("", "opencl", 0)
IDENTITIES = {"opencl:device": CARD.identity}


def timing(us):
    return Timing(us=us, spread_us=us / 10, runs=12)


def boundary(kind, source, destination, tensor, us):
    return BoundaryResult(
        kind=kind,
        source=source,
        destination=destination,
        tensor=tensor,
        timing=timing(us),
        failure=None,
    )


RESULTS = Results(
    schema_version=SCHEMA_VERSION,
    bundle="0" * 64,
    model="small",
    machine=MachineFound(
        described=MACHINE,
        gflops=30.0,
        memory_gbps=8.0,
        cache_gbps=20.0,
        devices={"opencl": CARD},
    ),
    threads=4,
    versions=VERSIONS,
    complete=True,
    workloads=(WORK,),
    candidates=(
        CandidateResult(key="k", decision=CPU, timing=timing(100.0), failure=None),
        CandidateResult(key="k", decision=OPENCL, timing=timing(50.0), failure=None),
        CandidateResult(
            key="k", decision=replace(CPU, layout="NHWC"), timing=None, failure="it crashed"
        ),
    ),
    boundaries=(
        boundary("transform", "NCHW", "NHWC", TENSOR, 3.0),
        boundary("crossing", "cpu", "opencl", TENSOR, 20.0),
        boundary("crossing", "cpu", "opencl", LARGE, 520.0),
    ),
    deployed=None,
)


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "results.json"
    documents.save(RESULTS, path)
    return path


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "cache" / "m.sqlite"


def opened(cache, **devices):
    versions = {**VERSIONS, **devices}
    return Store(Context(machine=MACHINE.fingerprint, versions=versions, threads=4), cache)


def content(cache):
    with opened(cache) as store:
        return [
            sorted(row[:-1] for row in store._query(f"SELECT * FROM {table}"))
            for table in ("measurement", "boundary", "workload", "hints", "machine")
        ]


def test_a_plan_finds_what_its_units_took(file, cache):
    kept = bring_home(file, cache)
    assert (kept.measurements, kept.failures, kept.complete) == (5, 1, True)
    with opened(cache) as store:
        assert store.get("k", CPU) == timing(100.0)
        assert store.get("k", OPENCL) is None
        assert store.boundary("transform", "NCHW", "NHWC", TENSOR).us == 3.0
        assert store.boundary("crossing", "cpu", "opencl", TENSOR) is None
    with opened(cache, **IDENTITIES) as store:
        assert store.get("k", CPU) == timing(100.0)
        assert store.get("k", OPENCL) == timing(50.0)
        assert store.get("k", replace(CPU, layout="NHWC")) == Failure(
            kind=FailureKind.BUILD, reason="it crashed"
        )
        assert store.boundary("crossing", "cpu", "opencl", LARGE).us == 520.0
    with opened(cache, **{"opencl:device": "another card"}) as store:
        assert store.get("k", CPU) == timing(100.0)
        assert store.get("k", OPENCL) is None


def test_a_store_that_stays_locked_is_an_error(file, cache, monkeypatch):
    bring_home(file, cache)
    monkeypatch.setattr(store_file, "BUSY_S", 0.1)
    other = sqlite3.connect(cache, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(LayoutselError, match=r"cannot keep the measurements of .* holds its lock"):
        bring_home(file, cache)
    other.close()


def test_its_machine_can_be_planned_for(file, cache):
    profile = MachineProfile.load(bring_home(file, cache).machine_file)
    assert profile.machine == MACHINE
    assert profile.peaks.gflops == pytest.approx(4e6 / 100 / 1e3)  # more than the reference attains
    card = profile.devices["opencl"]
    assert card.name == CARD.identity
    assert card.gflops == pytest.approx(4e6 / 50 / 1e3)
    links = Links.of(profile.links).table
    assert set(links) == {(HOST_DEVICE, DEVICE), (DEVICE, HOST_DEVICE)}
    for link in links.values():  # one direction was measured, which stands for both
        assert link.latency_us == 20.0
        assert link.gbps == pytest.approx(((1 << 20) - 64) / 500 / 1e3)


def test_devices_that_a_model_did_not_use_stay_known(file, cache):
    bring_home(file, cache)
    without = replace(
        RESULTS,
        machine=replace(RESULTS.machine, devices={}),
        candidates=(CandidateResult(key="l", decision=CPU, timing=timing(7.0), failure=None),),
        boundaries=(),
    )
    documents.save(without, file)
    profile = MachineProfile.load(bring_home(file, cache).machine_file)
    assert set(profile.devices) == {"opencl"}
    with opened(cache, **IDENTITIES) as store:
        assert store.get("l", CPU) == timing(7.0)


def test_cost_models_learn_from_it(file, cache):
    bring_home(file, cache)
    dataset, skipped = read_logs([cache])
    assert {str(sample.decision) for sample in dataset.samples} == {"cpu:NCHW", "opencl:NCHW"}
    assert all(sample.provenance.profile.machine == MACHINE for sample in dataset.samples)
    assert {part.reason for part in skipped} == {"the candidate failed"}


def test_other_versions_are_announced(file, cache, caplog):
    bring_home(file, cache)
    assert "measured with other versions of" in caplog.text
    caplog.clear()
    documents.save(replace(RESULTS, versions=all_versions()), file)
    bring_home(file, cache)
    assert not caplog.records


def test_twice_is_once(file, cache):
    bring_home(file, cache)
    before = content(cache)
    machine = bring_home(file, cache).machine_file.read_text()
    assert content(cache) == before
    assert bring_home(file, cache).machine_file.read_text() == machine


def test_a_slower_model_takes_nothing_from_the_machine(file, cache):
    first = MachineProfile.load(bring_home(file, cache).machine_file)
    slower = tuple(
        replace(one, timing=timing(10 * one.timing.us)) if one.timing else one
        for one in RESULTS.candidates
    )
    documents.save(replace(RESULTS, candidates=slower, model="other"), file)
    assert MachineProfile.load(bring_home(file, cache).machine_file) == first


def test_all_or_nothing(file, cache, monkeypatch):
    real = store_of.Store.put_boundary

    def failing(self, kind, *rest):
        if kind == "crossing":
            raise LayoutselError("the disk is full")
        real(self, kind, *rest)

    monkeypatch.setattr(store_of.Store, "put_boundary", failing)
    with pytest.raises(LayoutselError, match="the disk is full"):
        bring_home(file, cache)
    assert content(cache) == [[], [], [], [], []]
    assert not list(cache.parent.glob("machine-*"))


def broken(**changed):
    return json.dumps({**documents.to_json(RESULTS), **changed})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "valid JSON"),
        ("[]", "not results"),
        ('{"schema_version": 1}', "not results"),
        (broken(schema_version=1), "results of version 1; expected 2"),
        (broken(threads="many"), r"at \$.threads: got \"many\"; expected an integer"),
        (broken(candidates=[{"key": "k"}]), r"at \$.candidates\[0\]"),
        (broken(more=1), "an unknown field"),
        (
            broken(
                candidates=[{"key": "k", "decision": "cpu:NCHW", "timing": None, "failure": None}]
            ),
            "either a timing or a failure",
        ),
        (
            broken(
                candidates=[
                    {
                        "key": "k",
                        "decision": "cpu:NCHW",
                        "timing": {"us": -1.0, "spread_us": 0.0, "runs": 1},
                        "failure": None,
                    }
                ]
            ),
            "not a time",
        ),
    ],
)
def test_what_is_damaged_is_refused(file, cache, text, expected):
    file.write_text(text)
    with pytest.raises(LayoutselError, match=expected) as raised:
        bring_home(file, cache)
    assert str(file) in str(raised.value)
    assert not cache.exists()
