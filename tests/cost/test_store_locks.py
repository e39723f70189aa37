"""The measurement cache under locks, on file systems that lack them, and where its file breaks while it is open."""

import errno
import fcntl
import sqlite3
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

from layoutsel.core import file_systems
from layoutsel.cost import store_file
from layoutsel.cost.store import Store, forget_failures
from layoutsel.device.outcome import Timing
from tests.cost.test_store import CONTEXT, NHWC, TIMING
from tvm_passes.errors import LayoutselError


@pytest.fixture
def path(tmp_path):
    return tmp_path / "cache" / "measurements.sqlite"


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(store_file, "BUSY_S", 0.2)


@contextmanager
def locked(path, how="IMMEDIATE"):
    """Another connection writes, and does not end."""
    other = sqlite3.connect(path, isolation_level=None)
    other.execute(f"BEGIN {how}")
    yield
    other.close()


def journal_mode(path):
    connection = sqlite3.connect(path)
    ((mode,),) = connection.execute("PRAGMA journal_mode").fetchall()
    connection.close()
    return mode


def filled(path, count=200):
    with Store(CONTEXT, path) as store:
        for index in range(count):
            store.put(f"h{index}", NHWC, TIMING)


def break_table(path):
    """Damage the pages below the table's root, which opening does not read."""
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    ((root,),) = connection.execute(
        "SELECT rootpage FROM sqlite_master WHERE name='measurement'"
    ).fetchall()
    connection.close()
    content = bytearray(path.read_bytes())
    page = int.from_bytes(content[16:18], "big")
    first = max(root, int.from_bytes(content[28:32], "big") - 4)
    content[first * page :] = b"\xff" * (len(content) - first * page)
    path.write_bytes(content)


# --- locks that are not released


def test_a_lock_that_stays_costs_one_warning(path, caplog):
    filled(path, 3)
    with Store(CONTEXT, path) as store, locked(path):
        started = time.monotonic()
        store.put("a", NHWC, TIMING)
        store.put("b", NHWC, TIMING)
        assert time.monotonic() - started < 2
        assert not store.is_kept
        assert all(store.get(key, NHWC) == TIMING for key in ("a", "b", "h0", "h2"))
    (record,) = caplog.records
    assert "locked; they last for this process only" in record.message
    assert "--cache" in record.message
    with Store(CONTEXT, path) as store:
        assert store.count() == 3


def test_a_lock_in_a_transaction(path, caplog):
    filled(path, 1)
    with Store(CONTEXT, path) as store, locked(path):
        with store.transaction():
            store.put("a", NHWC, TIMING)
        assert store.get("a", NHWC) == TIMING
    assert len(caplog.records) == 1


def test_opening_needs_no_write_lock(path, caplog):
    filled(path, 1)
    with locked(path), Store(CONTEXT, path) as store:
        assert store.get("h0", NHWC) == TIMING
        assert store.is_kept
    assert not caplog.records


def test_a_file_locked_even_for_reading(path, caplog):
    path.parent.mkdir()
    sqlite3.connect(path).close()
    with locked(path, "EXCLUSIVE"), Store(CONTEXT, path) as store:
        store.put("a", NHWC, TIMING)
        assert store.get("a", NHWC) == TIMING
    (record,) = caplog.records
    assert "for this process only" in record.message


def test_a_copy_does_not_wait_for_a_file_that_cannot_be_read(path, caplog, monkeypatch):
    monkeypatch.setattr(store_file, "is_on_network", lambda _path: True)  # a lock bars readers too
    filled(path, 1)
    with Store(CONTEXT, path) as store, locked(path, "EXCLUSIVE"):
        started = time.monotonic()
        store.put("a", NHWC, TIMING)
        assert time.monotonic() - started < 2
        assert store.get("a", NHWC) == TIMING
    assert len(caplog.records) == 1


def test_failures_are_not_said_to_be_forgotten(path):
    filled(path, 1)
    with locked(path), pytest.raises(LayoutselError, match="cannot forget failures in"):
        forget_failures(path)


# --- no file locks, no shared memory


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS])
def test_a_file_system_without_locks(path, caplog, monkeypatch, code):
    def refuse(*_):
        raise OSError(code, "no locks here")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with Store(CONTEXT, path) as store:
        store.put("a", NHWC, TIMING)
        assert store.is_kept
    (record,) = caplog.records
    assert "going on without the lock" in record.message
    monkeypatch.undo()
    with Store(CONTEXT, path) as store:
        assert store.get("a", NHWC) == TIMING


def test_a_lock_file_that_another_process_holds(path, caplog):
    path.parent.mkdir()
    holder = (
        "import fcntl, sys; f = open(sys.argv[1], 'a'); fcntl.flock(f, fcntl.LOCK_EX)\n"
        "print('held', flush=True); sys.stdin.readline()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", holder, f"{path}.lock"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout.readline() == "held\n"
        with Store(CONTEXT, path) as store:
            store.put("a", NHWC, TIMING)
            assert store.is_kept
        process.stdin.write("\n")
    assert "another process holds it" in caplog.text


@pytest.mark.parametrize("is_old", [False, True])
def test_a_file_system_without_shared_memory(path, caplog, is_old):
    """Simulated by a link to itself in place of the file that is mapped."""
    if is_old:
        filled(path, 1)
    path.parent.mkdir(exist_ok=True)
    (path.parent / f"{path.name}-shm").symlink_to(f"{path.name}-shm")
    with Store(CONTEXT, path) as store:
        store.put("a", NHWC, TIMING)
        assert store.count() == 1 + is_old
        assert store.is_kept
    assert not caplog.records
    assert journal_mode(path) == "delete"
    with Store(CONTEXT, path) as store:
        assert store.get("a", NHWC) == TIMING


def test_no_shared_log_on_a_network(path, monkeypatch):
    filled(path, 1)
    assert journal_mode(path) == "wal"
    assert not file_systems.is_on_network(path)
    mounts = [line.split()[2] for line in Path("/proc/self/mounts").read_text().splitlines()]
    monkeypatch.setattr(file_systems, "_NETWORK", frozenset(mounts))
    with Store(CONTEXT, path) as store:
        assert store.get("h0", NHWC) == TIMING
    assert journal_mode(path) == "delete"


# --- a file that breaks or is replaced


def test_opening_does_not_read_the_whole_file(path, caplog):
    filled(path, 2000)
    break_table(path)
    with Store(CONTEXT, path, announce=False) as store:
        assert not caplog.records
        store.count()
        assert "is unusable" in caplog.text
        store.put("a", NHWC, TIMING)
    with Store(CONTEXT, path) as store:
        assert store.get("a", NHWC) == TIMING
    assert len(list(path.parent.glob("*.corrupt-*[0-9]"))) == 1


def test_a_transaction_survives_a_file_that_breaks(path):
    filled(path, 2000)
    break_table(path)
    with Store(CONTEXT, path, announce=False) as store, store.transaction():
        store.describe_machine({"cpu": "some"})
        store.count()
        store.put("a", NHWC, TIMING)
    with Store(CONTEXT, path) as store:
        assert store.count() == 1
        assert store._query("SELECT COUNT(*) FROM machine") == [(1,)]
    assert len(list(path.parent.glob("*.corrupt-*[0-9]"))) == 1


def put_two_times(store, *times_us):
    with store.transaction():
        for us in times_us:
            store.put(f"a{us}", NHWC, Timing(us=us, spread_us=0.0, runs=1))


def test_a_transaction_that_fails_keeps_nothing(path):
    with Store(CONTEXT, path) as store:
        with pytest.raises(LayoutselError, match="not a time"):
            put_two_times(store, 1.0, -1.0)
        assert store.count() == 0
        store.put("b", NHWC, TIMING)
    with Store(CONTEXT, path) as store:
        assert store.count() == 1


def test_a_file_that_another_process_replaced(path, caplog):
    filled(path, 1)
    with Store(CONTEXT, path) as store:
        store_file.move_aside(path)
        filled(path, 2)
        store.put("a", NHWC, TIMING)
        assert store.count() == 3
    assert not caplog.records
    with Store(CONTEXT, path) as store:
        assert store.count() == 3
