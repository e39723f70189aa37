"""A child process that does dangerous work: candidates may crash, hang or print without harming the planner.

One worker serves many calls, since starting one (importing TVM) takes seconds; after a crash or a time-out the next
call starts a fresh one. The function is named ``module:function``, takes one picklable payload and returns a picklable
value. What it prints goes to a file, whose end is quoted when it fails.
"""

from __future__ import annotations

import contextlib
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
from types import TracebackType
from typing import IO, Any

from layoutsel.device.outcome import Failure, FailureKind
from tvm_passes.errors import LayoutselError

_TAIL_BYTES = 600
"""How much of a failed worker's output is quoted."""
_POLL_S = 2.0
"""How often a worker looks whether its parent still lives."""


class WorkerError(LayoutselError):
    """A worker that cannot start at all: the fault is not with the candidates."""


@dataclass(frozen=True, kw_only=True)
class Reply:
    """What the function returned."""

    value: Any
    seconds: float
    """Wall time of the call."""


class Worker:
    """Runs ``module:function`` in a child process, one call at a time. A context manager."""

    def __init__(
        self,
        function: str,
        *,
        time_limit_s: float,
        start_limit_s: float = 120.0,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """Prepare; the process starts with the first call.

        Parameters
        ----------
        function
            ``module:function``, importable in the child.
        time_limit_s
            Seconds that one call may take.
        start_limit_s
            Seconds that starting, which imports the module, may take.
        environment
            Variables set for the child in addition, such as ``OMP_NUM_THREADS``.
        """
        self.function = function
        self.time_limit_s, self.start_limit_s = time_limit_s, start_limit_s
        self.environment = dict(environment or {})
        self.starts = 0
        self._child: _Child | None = None

    def __enter__(self) -> Worker:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the child process, if there is one."""
        if self._child is not None:
            self._child.end()
            self._child = None

    def call(self, payload: Any, limit_s: float | None = None) -> Reply | Failure:
        """Run the function on `payload`.

        An exception, a crash and a time-out are a :class:`~layoutsel.device.outcome.Failure` with the reason.

        Parameters
        ----------
        limit_s
            Seconds that this call may take, sending and receiving included; those of the worker if None.

        Raises
        ------
        WorkerError
            If the worker cannot start.
        """
        child = self._running()
        started = time.monotonic()
        limit_s = self.time_limit_s if limit_s is None else limit_s
        clock = _Clock(child, limit_s)
        try:
            with clock:  # a child that reads nothing, or stops amid its answer, blocks the pipe
                child.connection.send(payload)
                kind, value = child.connection.recv()
        except (EOFError, OSError):
            kind, value = ("hung" if clock.is_over else "died"), None
        except (
            BaseException
        ):  # Ctrl-C amid a call, or an unpicklable payload: the pipe is out of step
            self.close()
            raise
        if kind == "returned":
            return Reply(value=value, seconds=time.monotonic() - started)
        if kind == "raised":
            return Failure.parse(str(value))
        if kind == "died":
            failure = child.obituary()
        else:
            failure = Failure(kind=FailureKind.TIMEOUT, reason=f"ran longer than {limit_s:g} s")
        self.close()
        return failure

    def _running(self) -> _Child:
        if self._child is not None and self._child.process.poll() is None:
            return self._child
        self.close()
        self.starts += 1
        self._child = child = _Child(self.function, self.environment)
        try:
            answered = child.connection.poll(self.start_limit_s)
            kind, value = child.connection.recv() if answered else ("hung", None)
        except (EOFError, ConnectionError):
            kind, value = "died", child.obituary().reason
        except BaseException:
            self.close()
            raise
        if kind != "ready":
            self.close()
            why = value or f"did not start within {self.start_limit_s:g} s"
            raise WorkerError(f"cannot start a worker for {self.function}: {why}")
        return child


class _Clock:
    """Kills a child after some seconds of a block: whoever waits for its pipe goes on then."""

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
    """One child process with its pipe and the file that its output goes to."""

    def __init__(self, function: str, environment: Mapping[str, str]) -> None:
        self.output: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the child
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
        """Kill the child and whatever it started."""
        self.kill()
        self.process.wait()
        self.connection.close()
        self.output.close()

    def kill(self) -> None:
        """Send the signal alone; a fork of the process that started the child has no say in it."""
        if os.getpid() != self._owner:
            return
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)

    def obituary(self) -> Failure:
        """The cause of the child's death, and its last words."""
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


def serve(descriptor: int, name: str) -> None:
    """Be the child: import the function, then answer payloads until the pipe closes."""
    connection = Connection(descriptor)
    threading.Thread(target=_follow_parent, args=(os.getppid(),), daemon=True).start()
    try:
        function = _resolve(name)
    except Exception as error:  # anything may go wrong while importing: the parent reports it
        connection.send(("failed", _describe(error)))
        return
    connection.send(("ready", None))
    with contextlib.suppress(EOFError, ConnectionError):
        while True:
            payload = connection.recv_bytes()
            connection.send(_answer(function, payload))


def _answer(function: Callable[[Any], Any], payload: bytes) -> tuple[str, Any]:
    try:
        value = function(pickle.loads(payload))
        pickle.dumps(value)
    except Exception as error:  # the candidate's failure, whatever it is, is data
        return "raised", Failure.of_exception(error, _describe(error)).text
    return "returned", value


def _resolve(name: str) -> Callable[[Any], Any]:
    module, _, attribute = name.partition(":")
    function = getattr(importlib.import_module(module), attribute)
    assert callable(function), f"{name} is not callable"
    return function


def _describe(error: Exception) -> str:
    """One line with the type, the message's first lines and the innermost place."""
    text = " / ".join(str(error).strip().splitlines()[:4])[:_TAIL_BYTES]
    frames = traceback.extract_tb(error.__traceback__)
    where = f" (at {Path(frames[-1].filename).name}:{frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}: {text}{where}"


def _follow_parent(parent: int) -> None:
    """End this process, and what it started, soon after its parent."""
    while os.getppid() == parent:
        time.sleep(_POLL_S)
    os.killpg(os.getpgrp(), signal.SIGKILL)
