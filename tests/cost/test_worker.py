"""The worker harness under candidates that crash, hang, raise and print."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from layoutsel.device.outcome import Failure, FailureKind
from layoutsel.device.worker import Reply, Worker, WorkerError

FUNCTION = "tests.cost.fake_workers:behave"


@pytest.fixture
def worker():
    with Worker(FUNCTION, time_limit_s=20) as made:
        yield made


def test_one_process_serves_many_calls(worker):
    pids = {worker.call("pid").value for _ in range(5)}
    assert len(pids) == 1
    assert pids != {os.getpid()}
    assert worker.starts == 1
    array = np.arange(1_000_000)
    assert (worker.call(("echo", array)).value == array).all()


@pytest.mark.parametrize(
    ("action", "reason"),
    [
        ("abort", r"the process was killed by SIGABRT; it last wrote: .*last words"),
        ("segfault", r"the process was killed by SIGSEGV"),
        ("exit", r"the process exited with 3"),
        ("sys.exit", r"the process exited with 4"),
    ],
)
def test_a_crash_is_a_failure_and_the_next_call_works(worker, action, reason):
    failure = worker.call(action)
    assert isinstance(failure, Failure)
    assert re.search(reason, failure.reason, re.DOTALL), failure.reason
    assert worker.call("ok").value == (2.0, 0.5, 7)
    assert worker.starts == 2


def test_an_exception_keeps_the_worker(worker):
    failure = worker.call("raise")
    assert failure.reason.startswith("ValueError: no such / kernel (at fake_workers.py:")
    assert "pickle" in worker.call("unpicklable").reason.lower()
    assert isinstance(worker.call("ok"), Reply)
    assert worker.starts == 1


def test_output_neither_blocks_nor_appears(worker, capfd):
    assert worker.call("print").value == (1.0, 0.1, 5)
    assert capfd.readouterr() == ("", "")


def test_a_hang_is_ended_with_all_it_started():
    with Worker(FUNCTION, time_limit_s=0.5) as worker:
        assert isinstance(worker.call("pid"), Reply)
        group = worker._child.process.pid
        started = time.monotonic()
        assert worker.call("spawn") == Failure(
            kind=FailureKind.TIMEOUT, reason="ran longer than 0.5 s"
        )
        assert time.monotonic() - started < 5
        for _ in range(50):
            if _members(group) == 0:
                break
            time.sleep(0.1)
        assert _members(group) == 0
        assert isinstance(worker.call("ok"), Reply)


def _members(group):
    """Living processes of the process group `group`."""
    listed = subprocess.run(["ps", "-eo", "pgid,stat"], capture_output=True, text=True, check=True)
    rows = [line.split() for line in listed.stdout.splitlines()]
    return sum(row[0] == str(group) and not row[1].startswith("Z") for row in rows)


def test_a_worker_killed_between_calls_is_replaced(worker):
    pid = worker.call("pid").value
    os.kill(pid, signal.SIGKILL)
    time.sleep(0.2)
    outcome = worker.call("pid")
    assert isinstance(outcome, Reply)
    assert outcome.value != pid


def test_a_worker_has_a_limit_of_memory():
    with Worker(FUNCTION, time_limit_s=60, memory_bytes=1 << 29) as worker:
        failure = worker.call(("allocate", 1 << 30))
        assert failure.kind is FailureKind.ENVIRONMENT
        assert "MemoryError" in failure.reason
        assert worker.call(("allocate", 1 << 20)).value == 1 << 20
    with Worker(FUNCTION, time_limit_s=60) as worker:
        assert worker.call(("allocate", 1 << 30)).value == 1 << 30


def test_environment_reaches_the_worker():
    with Worker(FUNCTION, time_limit_s=5, environment={"OMP_NUM_THREADS": "7"}) as worker:
        assert worker.call(("env", "OMP_NUM_THREADS")).value == "7"


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        ("tests.cost.nothing:here", "ModuleNotFoundError"),
        ("tests.cost.fake_workers:absent", "AttributeError"),
        ("time:sleep.x", "AttributeError"),
    ],
)
def test_a_worker_that_cannot_start_is_an_error(function, reason):
    with Worker(function, time_limit_s=1) as worker, pytest.raises(WorkerError, match=reason):
        worker.call("ok")


def test_close_ends_the_process_and_twice_is_fine(worker):
    pid = worker.call("pid").value
    worker.close()
    worker.close()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_a_worker_follows_a_killed_parent(tmp_path):
    script = (
        "import time; from layoutsel.device.worker import Worker\n"
        f"w = Worker({FUNCTION!r}, time_limit_s=60); print(w.call('pid').value, flush=True)\n"
        "w.call('hang')"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, text=True
    ) as parent:
        pid = int(parent.stdout.readline())
        parent.kill()
    for _ in range(80):
        try:
            os.kill(pid, 0)
            state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
            if state == "Z":
                return
        except (ProcessLookupError, FileNotFoundError):
            return
        time.sleep(0.1)
    os.kill(pid, signal.SIGKILL)
    pytest.fail("the worker outlived its parent")


@pytest.mark.parametrize("action", ["stopped", "half an answer"])
def test_a_pipe_that_blocks_has_a_limit(worker, action):
    """A stopped child reads nothing; one that is stopped amid its answer writes nothing more."""
    worker.call("ok")
    process = worker._child.process
    if action == "stopped":
        os.kill(process.pid, signal.SIGSTOP)
        failure = worker.call(("echo", bytes(32 << 20)), 1.0)
    else:
        failure = worker.call("half an answer", 1.0)
    assert failure == Failure(kind=FailureKind.TIMEOUT, reason="ran longer than 1 s")
    assert process.poll() is not None
    assert isinstance(worker.call("ok"), Reply)
