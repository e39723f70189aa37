"""Tuning on the servers of a real tracker, one of which dies."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from layoutsel.tuning.remote import Tracker
from tests.cli.command import layoutsel
from tests.tuning.conftest import LAYOUTS, record_lines

KEY = "board"
TRIALS = 6
START_S = 60
TUNE_S = 150


def free_port() -> int:
    """A port that nobody listens at."""
    with contextlib.closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def running(module: str, *arguments: object) -> Iterator[subprocess.Popen[bytes]]:
    """Run ``python -m module arguments…`` and whatever it starts."""
    process = subprocess.Popen(
        [sys.executable, "-m", module, *map(str, arguments)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        env={**os.environ, "TVM_NUM_THREADS": "1"},
    )
    try:
        yield process
    finally:
        end(process)


def end(process: subprocess.Popen[bytes]) -> None:
    """Kill a process and what it started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


@pytest.fixture
def tracker() -> Iterator[Tracker]:
    """A tracker on loopback."""
    address = Tracker(host="127.0.0.1", port=free_port(), key=KEY)
    ports = ("--port", address.port, "--port-end", address.port + 1)
    with running("tvm.exec.rpc_tracker", "--host", address.host, *ports):
        wait_for(address, 0)
        yield address


def wait_for(tracker: Tracker, servers: int) -> None:
    """Wait until the tracker answers and has so many servers."""
    end_s = time.monotonic() + START_S
    while time.monotonic() < end_s:
        with contextlib.suppress(Exception):
            if tracker.servers() == servers:
                return
        time.sleep(0.2)
    pytest.fail(f"no {servers} servers at {tracker} within {START_S} s")


def server(tracker: Tracker) -> contextlib.AbstractContextManager[subprocess.Popen[bytes]]:
    """A server on loopback."""
    port = free_port()
    return running(
        "tvm.exec.rpc_server",
        *("--host", "127.0.0.1", "--port", port, "--port-end", port + 1),
        *("--tracker", f"{tracker.host}:{tracker.port}", "--key", KEY),
    )


def tune(
    model: Path, logs: Path, tracker: Tracker, trials: int
) -> subprocess.CompletedProcess[str]:
    """Run the command."""
    return layoutsel(
        *("tune", model, "--logs", logs, "--threads", 1, "--trials", trials),
        *("--tracker", f"{tracker.host}:{tracker.port}", "--key", KEY),
    )


@pytest.mark.nightly
def test_a_dying_server_loses_nothing(model, tmp_path, tracker):
    logs, done = tmp_path / "logs", []
    with server(tracker) as doomed, server(tracker):
        wait_for(tracker, 2)
        thread = threading.Thread(target=lambda: done.append(tune(model, logs, tracker, TRIALS)))
        thread.start()
        end_s = time.monotonic() + TUNE_S
        while len(record_lines(logs)) < 2 and thread.is_alive() and time.monotonic() < end_s:
            time.sleep(0.02)
        before = len(record_lines(logs))
        end(doomed)
        thread.join(timeout=TUNE_S)
    assert done, "tuning did not end"
    assert done[0].returncode == 0, done[0].stderr
    wanted = TRIALS * len(LAYOUTS)
    assert 2 <= before < wanted
    lines = record_lines(logs)
    assert len(lines) == wanted
    assert all(0 < second < 1 for line in lines for second in line[1][1])
    assert f"{wanted} new trials, 0 recorded before, 0 schedules failed" in done[0].stdout


def test_without_a_server_nothing_starts(model, tmp_path, tracker):
    done = tune(model, tmp_path / "logs", tracker, 1)
    assert done.returncode == 2
    assert "no server of key 'board'" in done.stderr
    assert len(done.stderr.splitlines()) == 1
