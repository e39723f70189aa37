"""Work in a copy of this process: results, errors and logs come back; time, memory and locks end it."""

from __future__ import annotations

import faulthandler
import logging
import os
import threading
import time

import numpy as np
import pytest

from layoutsel.device import forked
from layoutsel.device.forked import CopyFailed, Forked, Limits, Stuck
from layoutsel.device.outcome import FailureKind
from tvm_passes.errors import BuildError, Decline, Declined

LIMITS = Limits(time_s=30.0, memory_bytes=256 << 20)


def answer(work, limits=LIMITS):
    """What `work` gives in a copy."""

    def sending(connection):
        connection.send(work())

    with Forked(sending, limits) as child:
        return child.receive()


def test_it_runs_in_another_process_that_has_what_this_one_has():
    here = {"key": object()}
    process, found = answer(lambda: (os.getpid(), list(here)))
    assert process != os.getpid()
    assert found == ["key"]


def test_bytes_follow_the_first_object():
    content = np.arange(1 << 20, dtype=np.uint8)

    def work(connection):
        connection.send(content.nbytes)
        connection.send_bytes(content.data)

    with Forked(work, LIMITS) as child:
        memory = np.empty(child.receive(), np.uint8)
        child.receive_into(memory.data)
    np.testing.assert_array_equal(memory, content)


def raising(error):
    def work():
        raise error

    return work


def test_our_errors_come_back_with_class_and_fields():
    with pytest.raises(BuildError, match="no luck") as caught:
        answer(raising(BuildError("no luck", subgraph="s1", unit="onednn")))
    assert (caught.value.subgraph, caught.value.unit) == ("s1", "onednn")
    decline = Decline(subgraph="s2", operator="relu", decision="amx:NCHW", got="a", expected="b")
    with pytest.raises(Declined) as declined:
        answer(raising(Declined(decline)))
    assert (declined.value.subgraph, declined.value.unit) == ("s2", "amx")


def test_any_other_error_is_a_reason():
    with pytest.raises(CopyFailed, match="KeyError: 'no such'"):
        answer(raising(KeyError("no such")))


def test_what_is_logged_is_logged_here(caplog):
    with caplog.at_level(logging.WARNING):
        answer(lambda: logging.getLogger("layoutsel.somewhere").warning("%s falls back", "s3"))
    assert [(one.name, one.getMessage()) for one in caplog.records] == [
        ("layoutsel.somewhere", "s3 falls back")
    ]


def test_time_ends_it():
    started = time.monotonic()
    with pytest.raises(CopyFailed, match="it took longer than") as caught:
        answer(lambda: time.sleep(60), Limits(time_s=0.3, memory_bytes=1 << 28))
    assert caught.value.failure.kind is FailureKind.TIMEOUT
    assert time.monotonic() - started < 50


def test_memory_ends_it():
    with pytest.raises(CopyFailed, match="more than 268 MB of memory") as caught:
        answer(lambda: np.ones(1 << 30, np.uint8).sum())
    assert caught.value.failure.kind is FailureKind.ENVIRONMENT


def test_a_crash_is_told():
    with pytest.raises(CopyFailed, match="aborted"):
        answer(lambda: (faulthandler.disable(), os.abort()))


def test_a_lock_that_another_thread_holds_is_noticed(monkeypatch):
    monkeypatch.setattr(forked, "_STUCK_S", 1.0)
    monkeypatch.setattr(forked, "_POLL_S", 0.2)
    lock = threading.Lock()
    with lock, pytest.raises(Stuck, match="waits for a lock"):
        answer(lock.acquire)


def test_a_copy_does_not_outlive_its_end():
    def work(connection):
        connection.send(os.getpid())
        time.sleep(60)

    with Forked(work, LIMITS) as child:
        process = child.receive()
        os.kill(process, 0)
    with pytest.raises(ProcessLookupError):
        os.kill(process, 0)


def test_without_processes_nothing_is_done(monkeypatch):
    def refused():
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(os, "fork", refused)
    with pytest.raises(Stuck, match="no process can be started"):
        answer(lambda: 1)
