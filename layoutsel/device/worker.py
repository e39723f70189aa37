"""Child processes for work that may crash, hang or print without harming the planner.

One worker serves many calls, because starting one (importing TVM) takes seconds. After a crash or a
time-out, the next call starts a new process. The function is named ``module:function``, takes one
picklable payload and returns a picklable value. Its output goes to a file, and errors quote the end
of it.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import os
import pickle
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection, Pipe
from pathlib import Path
from typing import IO, Any

from layoutsel.core.closing import Closing
from layoutsel.core.collection import paused_collection
from layoutsel.core.memory_limits import limit_memory, most_bytes
from layoutsel.device.outcome import Failure, FailureKind
from tvm_passes.errors import LayoutselError

_TAIL_BYTES = 600
"""Maximum length of quoted output and of an error's text."""
_POLL_S = 2.0
"""Time between two checks by a child that its parent still lives, seconds."""


class WorkerError(LayoutselError):
    """A worker that cannot start, for reasons other than a candidate."""


@dataclass(frozen=True, kw_only=True)
class Reply:
    """Result of a call."""

    value: Any
    """Return value of the function."""
    seconds: float
    """Wall time of the call."""


class Worker(Closing):
    """A child process that runs ``module:function``, one call at a time; a context manager."""

    def __init__(
        self,
        function: str,
        *,
        time_limit_s: float,
        start_limit_s: float = 120.0,
        memory_bytes: int | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """Prepare a worker; the first call starts the process.

        Parameters
        ----------
        function
            ``module:function``, importable in the child.
        time_limit_s
            Time limit of one call, seconds.
        start_limit_s
            Time limit of the start with the import of the module, seconds.
        memory_bytes
            Memory limit of the process; a share of the machine's memory if None.
        environment
            Additional variables for the child, such as ``OMP_NUM_THREADS``.
        """
        self.function = function
        self.time_limit_s, self.start_limit_s = time_limit_s, start_limit_s
        self.memory_bytes = memory_bytes or most_bytes()
        self.environment = dict(environment or {})
        self.starts = 0
        self._child: _Child | None = None

    @property
    def is_running(self) -> bool:
        """True if the next call needs no new process."""
        return self._child is not None and self._child.process.poll() is None

    def close(self) -> None:
        """End the child process, if any."""
        if self._child is not None:
            self._child.end()
            self._child = None

    def call(self, payload: Any, limit_s: float | None = None) -> Reply | Failure:
        """Run the function on `payload`.

        An exception, a crash or a time-out is a :class:`~layoutsel.device.outcome.Failure`.

        Parameters
        ----------
        payload
            Picklable argument of the function.
        limit_s
            Time limit of this call with its communication, seconds; the worker's own if None.

        Raises
        ------
        WorkerError
            If the process cannot start.
        """
        child = self._running()
        started = time.monotonic()
        limit_s = self.time_limit_s if limit_s is None else limit_s
        clock = _Clock(child, limit_s)
        try:
            with clock:  # a child that stops reading or answering would block the pipe for ever
                child.connection.send(payload)
                kind, value = child.connection.recv()
        except (EOFError, OSError):
            kind, value = ("hung" if clock.is_over else "died"), None
        except BaseException:
            # After Ctrl-C or an unpicklable payload, the pipe may hold half a message.
            self.close()
            raise
        if kind == "returned":
            return Reply(value=value, seconds=time.monotonic() - started)
        if kind == "raised":
            return Failure.parse(str(value))
        if kind == "died":
            failure = child.exit_failure()
        else:
            failure = Failure(kind=FailureKind.TIMEOUT, reason=f"ran longer than {limit_s:g} s")
        self.close()
        return failure

    def _running(self) -> _Child:
        if self._child is not None and self.is_running:
            return self._child
        self.close()
        self.starts += 1
        self._child = child = _Child(self.function, self.environment)
        limit_memory(child.process.pid, self.memory_bytes)
        try:
            answered = child.connection.poll(self.start_limit_s)
            kind, value = child.connection.recv() if answered else ("hung", None)
        except (EOFError, ConnectionError):
            kind, value = "died", child.exit_failure().reason
        except BaseException:
            self.close()
            raise
        if kind != "ready":
            self.close()
            why = value or f"did not start within {self.start_limit_s:g} s"
            raise WorkerError(f"cannot start a worker for {self.function}: {why}")
        return child


class _Clock:
    """A context manager that kills a child after a time limit, which unblocks its pipe."""

    def __init__(self, child: _Child, limit_s: float) -> None:
        self._child = child
        self._timer = threading.Timer(min(limit_s, threading.TIMEOUT_MAX), self._end)
        self._timer.daemon = True
        self.is_over = False

    def __enter__(self) -> None:
        self._timer.start()

    def __exit__(self, *_error: object) -> None:
        self._timer.cancel()
        self._timer.join()

    def _end(self) -> None:
        self.is_over = True
        self._child.kill()


class _Child:
    """One child process with its pipe and the file of its output."""

    def __init__(self, function: str, environment: Mapping[str, str]) -> None:
        # The file lives as long as the child.
        self.output: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115
        self.connection, theirs = Pipe()
        path = os.pathsep.join(entry or str(Path.cwd()) for entry in sys.path)
        self.process = subprocess.Popen(
            [sys.executable, "-c", _BOOT, str(theirs.fileno()), function],
            stdin=subprocess.DEVNULL,
            stdout=self.output,
            stderr=self.output,
            pass_fds=[theirs.fileno()],
            env={**os.environ, **environment, "PYTHONPATH": path},
            start_new_session=True,
        )
        theirs.close()
        self._owner = os.getpid()

    def end(self) -> None:
        """Kill the child and all processes that it started."""
        self.kill()
        self.process.wait()
        self.connection.close()
        self.output.close()

    def kill(self) -> None:
        """Send SIGKILL to the child's process group."""
        # A fork of the process that started the child does not own it.
        if os.getpid() != self._owner:
            return
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)

    def exit_failure(self) -> Failure:
        """Failure that describes the exit of the child and the end of its output."""
        try:
            code = self.process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            return Failure(kind=FailureKind.ENVIRONMENT, reason="closed its pipe without an answer")
        end = self.output.seek(0, os.SEEK_END)
        self.output.seek(max(0, end - _TAIL_BYTES))
        tail = self.output.read().decode(errors="replace").strip()
        return Failure.of_exit(code, tail)


_BOOT = (
    "import sys; from layoutsel.device.worker import serve; serve(int(sys.argv[1]), sys.argv[2])"
)
"""Program of the child process."""


def serve(descriptor: int, name: str) -> None:
    """Main function of the child: import the function and answer payloads until the pipe closes."""
    connection = Connection(descriptor)
    threading.Thread(target=_follow_parent, args=(os.getppid(),), daemon=True).start()
    try:
        with paused_collection():
            function = _resolve(name)
    except Exception as error:  # an import may fail in any way: the parent reports it
        connection.send(("failed", _describe(error)))
        return
    gc.freeze()  # no later collection visits the imported modules
    connection.send(("ready", None))
    with contextlib.suppress(EOFError, ConnectionError):
        while True:
            payload = connection.recv_bytes()
            connection.send(_answer(function, payload))


def _answer(function: Callable[[Any], Any], payload: bytes) -> tuple[str, Any]:
    try:
        value = function(pickle.loads(payload))
        pickle.dumps(value)
    except Exception as error:  # any failure of a candidate is a result
        return "raised", Failure.of_exception(error, _describe(error)).text
    return "returned", value


def _resolve(name: str) -> Callable[[Any], Any]:
    module, _, attribute = name.partition(":")
    function = getattr(importlib.import_module(module), attribute)
    assert callable(function), f"{name} is not callable"
    return function


def _describe(error: Exception) -> str:
    """One line with the error's type, the start of its message, and the innermost code line."""
    text = " / ".join(str(error).strip().splitlines()[:4])[:_TAIL_BYTES]
    frames = traceback.extract_tb(error.__traceback__)
    where = f" (at {Path(frames[-1].filename).name}:{frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}: {text}{where}"


def _follow_parent(parent: int) -> None:
    """End this process and its children soon after the parent ends."""
    while os.getppid() == parent:
        time.sleep(_POLL_S)
    os.killpg(os.getpgrp(), signal.SIGKILL)
