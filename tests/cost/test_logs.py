"""Stores as logs: what can be learned from is read, the rest is counted with its reason."""

from __future__ import annotations

import sqlite3
from dataclasses import asdict

import pytest
from learning import convolution, profile, samples

from layoutsel.core.workload import BoundaryTensor
from layoutsel.cost.archive import write_archive
from layoutsel.cost.logs import read_logs
from layoutsel.cost.samples import Dataset
from layoutsel.cost.store import Context, Store, Timing
from layoutsel.device.outcome import Failure, FailureKind
from tvm_passes.decision import Decision
from tvm_passes.errors import LayoutselError

NHWC = Decision(unit="cpu", layout="NHWC")
TIMING = Timing(us=12.5, spread_us=0.5, runs=9)


@pytest.fixture
def file(tmp_path):
    found = tmp_path / "log.sqlite"
    here = profile()
    context = Context(machine=here.machine.fingerprint, versions={"v": "1"}, threads=here.threads)
    with Store(context, found) as store:
        store.describe_machine({**asdict(here.machine), "peaks": asdict(here.peaks)})
        for work in (convolution(8, 8, 7), convolution(16, 16, 7)):
            store.describe(work)
            store.put(work.key, NHWC, TIMING)
        store.put(
            convolution(8, 8, 7).key,
            Decision(unit="onednn"),
            Failure(kind=FailureKind.CRASH, reason="crashed"),
        )
        tensor = BoundaryTensor(shape=(1, 8, 7, 7), dtype="float32", bytes=1568)
        store.put_boundary("transform", "NCHW", "NHWC", tensor, TIMING)
    return found


def test_a_store_is_read(file):
    dataset, skipped = read_logs([file])
    assert {s.workload.key for s in dataset.samples} == {"conv8-8-7-1", "conv16-16-7-1"}
    assert {s.workload.inputs for s in dataset.samples} == {((1, 8, 7, 7),), ((1, 16, 7, 7),)}
    assert dataset.samples[0].provenance.profile == profile()
    assert dataset.boundaries[0].us == TIMING.us
    assert [(part.reason, part.count) for part in skipped] == [("the candidate failed", 1)]


@pytest.mark.parametrize(
    ("statement", "reason"),
    [
        ("DELETE FROM workload", "workload is not described"),
        ("UPDATE workload SET description='{'", "Expecting"),
        ("DELETE FROM machine", "machine is not described"),
        ("UPDATE machine SET description='{}'", "machine"),
        ("UPDATE measurement SET median_us=-1", "as a time"),
        ("UPDATE measurement SET decision=decision||':a:b:c:d'", "cannot read decision"),
    ],
)
def test_what_cannot_be_read_is_counted(file, statement, reason):
    connection = sqlite3.connect(file)
    connection.execute(statement)
    connection.commit()
    connection.close()
    dataset, skipped = read_logs([file])
    assert not dataset.samples
    assert any(reason in part.reason for part in skipped)


def test_logs_of_all_kinds_join(file, tmp_path):
    write_archive(Dataset(samples=samples(2)), tmp_path / "a.xz")
    dataset, _ = read_logs([file, tmp_path / "a.xz"])
    assert len(dataset.samples) == 2 + 6


def test_a_broken_store_is_one_error(file):
    file.write_bytes(file.read_bytes()[:100] + b"\xff" * 5000)
    with pytest.raises(LayoutselError, match=r"log\.sqlite"):
        read_logs([file])


def test_what_is_no_log_is_one_error(tmp_path):
    (tmp_path / "x").write_text("hello")
    for name in ("x", "absent"):
        with pytest.raises(LayoutselError, match=name):
            read_logs([tmp_path / name])
