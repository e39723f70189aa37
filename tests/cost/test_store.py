"""The measurement cache: what it keeps, what it ignores, and what it survives."""

import logging
import os
import signal
import sqlite3
import subprocess
import sys
import time
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layoutsel.core.workload import BoundaryTensor, Cost, Infeasible
from layoutsel.cost.store import Context, Store, Timing, default_path, interpolate
from layoutsel.device.outcome import Failure, FailureKind
from tvm_passes.decision import Decision
from tvm_passes.errors import LayoutselError

CONTEXT = Context(machine="m", versions={"tvm": "0.27", "onednn": "3.2"}, threads=2)
NHWC = Decision(unit="onednn", layout="NHWC")
TIMING = Timing(us=12.5, spread_us=0.5, runs=9)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "cache" / "measurements.sqlite"


def test_keeps_times_and_failures(path):
    with Store(CONTEXT, path) as store:
        assert store.get("h", NHWC) is None
        store.put("h", NHWC, TIMING)
        store.put("g", NHWC, Failure(kind=FailureKind.CRASH, reason="crashed"))
    with Store(CONTEXT, path) as store:
        assert store.get("h", NHWC) == TIMING
        assert store.cost("h", NHWC) == Cost.timed(12.5, 0.5, "measured")
        assert store.cost("g", NHWC) == Infeasible(reason="crashed")
        assert store.count() == 2
        assert store.forget_failures() == 1
        assert store.get("g", NHWC) is None
        store.put("h", NHWC, replace(TIMING, us=1.0))
        assert store.get("h", NHWC).us == 1.0


@pytest.mark.parametrize(
    "other",
    [
        replace(CONTEXT, machine="n"),
        replace(CONTEXT, threads=1),
        replace(CONTEXT, versions={"tvm": "0.28", "onednn": "3.2"}),
    ],
)
def test_other_contexts_do_not_share(path, other):
    with Store(CONTEXT, path) as store:
        store.put("h", NHWC, TIMING)
    with Store(other, path) as store:
        assert store.get("h", NHWC) is None
        assert store.get("h", Decision(unit="cpu", layout="NHWC")) is None
    with Store(CONTEXT, path) as store:
        assert store.get("h", NHWC) == TIMING


def test_warns_of_stale_entries(path, caplog):
    with Store(CONTEXT, path) as store:
        store.put("h", NHWC, TIMING)
    assert not caplog.records
    Store(replace(CONTEXT, versions={"tvm": "0.28", "onednn": "3.2"}), path).close()
    assert "1 measurements in" in caplog.text
    assert "stale, made with other versions of tvm: ignored" in caplog.text


def damaged_header(path):
    path.write_bytes(b"not a database at all" * 100)


def damaged_body(path):
    content = bytearray(path.read_bytes())
    content[100:] = b"\xff" * (len(content) - 100)
    path.write_bytes(content)


def truncated(path):
    path.write_bytes(path.read_bytes()[:5000])


def other_schema(path):
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version = 99")
    connection.close()


@pytest.mark.parametrize("damage", [damaged_header, damaged_body, truncated, other_schema])
def test_a_corrupt_file_is_moved_aside(path, damage, caplog):
    with Store(CONTEXT, path) as store:
        for i in range(200):
            store.put(f"h{i}", NHWC, TIMING)
    damage(path)
    with Store(CONTEXT, path) as store:
        assert "is unusable" in caplog.text
        assert store.count() == 0
        store.put("h", NHWC, TIMING)
    with Store(CONTEXT, path) as store:
        assert store.get("h", NHWC) == TIMING
    assert len(list(path.parent.glob("*.corrupt-*[0-9]"))) == 1


def test_an_empty_file_is_a_new_cache(path):
    path.parent.mkdir()
    path.touch()
    with Store(CONTEXT, path) as store:
        store.put("h", NHWC, TIMING)
        assert store.count() == 1


def test_a_folder_that_cannot_be_made_means_memory(tmp_path, caplog):
    (tmp_path / "file").write_text("")
    with Store(CONTEXT, tmp_path / "file" / "cache.sqlite") as store:
        assert "for this process only" in caplog.text
        store.put("h", NHWC, TIMING)
        assert store.get("h", NHWC) == TIMING


WRITER = """
import sys
from tests.cost.test_store import CONTEXT, NHWC, TIMING
from layoutsel.cost.store import Store
path, name = sys.argv[1:]
print("up", flush=True)
sys.stdin.readline()
with Store(CONTEXT, path) as store:
    for i in range(int(1e9) if name == "endless" else 300):
        store.put(f"{name}{i}", NHWC, TIMING)
        store.put("shared", NHWC, TIMING)
        if i == 50:
            print("going", flush=True)
"""


def start_writer(path, name):
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path), name],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "up\n"
    return process


@pytest.mark.parametrize("damage", [None, damaged_header])
def test_two_processes_at_once(path, damage):
    path.parent.mkdir()
    if damage is not None:
        damage(path)
    writers = [start_writer(path, name) for name in ("a", "b")]
    for writer in writers:
        writer.stdin.write("\n")
        writer.stdin.flush()
    for writer in writers:
        writer.communicate(timeout=60)
        assert writer.returncode == 0
    with Store(CONTEXT, path) as store:
        assert store.count() == 601
    assert len(list(path.parent.glob("*.corrupt-*[0-9]"))) == (damage is not None)


def test_a_killed_writer_loses_nothing_that_was_put(path, caplog):
    writer = start_writer(path, "endless")
    writer.stdin.write("\n")
    writer.stdin.flush()
    assert writer.stdout.readline() == "going\n"
    time.sleep(0.1)
    os.kill(writer.pid, signal.SIGKILL)
    writer.communicate()
    with caplog.at_level(logging.WARNING), Store(CONTEXT, path) as store:
        assert not caplog.records
        assert store.count() > 50
        assert all(store.get(f"endless{i}", NHWC) == TIMING for i in range(50))


def tensor(size):
    return BoundaryTensor(shape=(1, size // 4), dtype="float32", bytes=size)


def test_boundaries_are_measured_or_interpolated(path):
    with Store(CONTEXT, path) as store:
        ask = ("transform", "NCHW", "NHWC")
        assert store.boundary(*ask, tensor(100)) is None
        store.put_boundary(*ask, tensor(1000), Timing(us=10, spread_us=1, runs=3))
        store.put_boundary(*ask, tensor(3000), Timing(us=20, spread_us=4, runs=3))
        assert store.boundary(*ask, tensor(1000)) == Cost.timed(10, 1, "measured")
        between = store.boundary(*ask, tensor(2000))
        assert (between.us, between.source) == (15, "interpolated")
        assert store.boundary(*ask, tensor(4)).us == 10
        assert store.boundary(*ask, tensor(6000)).us == 40
        same_bytes = replace(tensor(1000), shape=(2, 125))
        assert store.boundary(*ask, same_bytes).source == "interpolated"
        assert store.boundary("transform", "NHWC", "NCHW", tensor(1000)) is None
        assert store.boundary("crossing", "NCHW", "NHWC", tensor(1000)) is None
        assert store.boundary(*ask, replace(tensor(1000), dtype="bfloat16")) is None


@given(
    st.lists(st.tuples(st.integers(1, 10**9), st.floats(0, 1e6)), min_size=1, max_size=6),
    st.integers(1, 10**9),
)
def test_interpolation_stays_between_its_neighbours(points, size):
    ordered = [(x, y, 0.0) for x, y in sorted(points)]
    us = interpolate(ordered, size).us
    values = [y for _, y, _ in ordered]
    if ordered[0][0] <= size <= ordered[-1][0]:
        assert min(values) - 1e-6 <= us <= max(values) + 1e-6
    assert us >= 0


@pytest.mark.parametrize("us", [float("nan"), float("inf"), -1.0])
def test_no_time_is_refused(us):
    with pytest.raises(LayoutselError, match="not a time"):
        Timing(us=us, spread_us=0.0, runs=1)


def test_default_path_is_in_the_users_cache():
    assert default_path().name == "measurements.sqlite"
