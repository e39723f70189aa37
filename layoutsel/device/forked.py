"""Work in a forked copy of this process, within limits of time and memory.

The system reclaims the copy's memory when it ends. The copy inherits everything that the work
needs, such as a session, its weights and registered units, and shares this memory until it writes
to it. The work runs on a new thread, because OpenMP's pool does not work in the thread that forked.
A lock that another thread held at the fork is never released in the copy. The copy then uses no
processor time, which raises :class:`Stuck`.
"""

from __future__ import annotations

import contextlib
import contextvars
import gc
import logging
import os
import pickle
import resource
import signal
import threading
import time
import traceback
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from logging.handlers import QueueHandler
from multiprocessing.connection import Connection, Pipe
from pathlib import Path
from queue import SimpleQueue
from types import TracebackType
from typing import Any, NoReturn

from layoutsel.device.outcome import Failure, FailureKind
from tvm_passes.errors import LayoutselError

logger = logging.getLogger(__name__)

_POLL_S = 1.0
"""Time between two checks of the copy's processor time and of its parent, seconds."""
_STUCK_S = 20.0
"""Time without processor use after which a copy counts as blocked by a lost lock, seconds."""

Work = Callable[[Connection], None]
"""Function that a copy runs; it sends its results through the connection."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Limits of a copy."""

    time_s: float
    """Longest time of the work, seconds."""
    memory_bytes: int
    """Memory beyond that of the original process, bytes."""


class Stuck(Exception):
    """A copy is blocked or cannot be created; the work has to run in this process."""


class CopyFailed(Exception):
    """A copy exceeded a limit, crashed, or raised an error that is not layoutsel's own.

    Parameters
    ----------
    failure
        Kind and reason of the failure.
    """

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.reason)
        self.failure = failure


class Forked:
    """A forked copy of this process at work; a context manager that ends the copy.

    Parameters
    ----------
    work
        Function to run in the copy.
    limits
        Limits of the copy.

    Raises
    ------
    Stuck
        If the system refuses to fork.
    """

    def __init__(self, work: Work, limits: Limits) -> None:
        self._limits = limits
        self._deadline = time.monotonic() + limits.time_s
        self._connection, theirs = Pipe(duplex=False)
        parent = os.getpid()
        try:
            with warnings.catch_warnings():
                # Newer Pythons warn about forks of threaded processes; the work uses none of them.
                warnings.simplefilter("ignore", DeprecationWarning)
                self._process = os.fork()
        except OSError as error:
            self._connection.close()
            theirs.close()
            raise Stuck(f"no process can be started: {error.strerror}") from error
        if self._process == 0:
            _run_copy(work, theirs, limits, parent)
        theirs.close()

    def __enter__(self) -> Forked:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._end()

    def receive(self) -> Any:
        """Wait for the first object that the work sends, and log the copy's messages here.

        Raises
        ------
        LayoutselError
            The error that the work raised.
        CopyFailed
            If the copy exceeded a limit, crashed, or raised another error.
        Stuck
            If the copy stopped using the processor.
        """
        self._wait()
        try:
            kind, value, records = self._connection.recv()
        except (EOFError, OSError):
            raise CopyFailed(self._exit_failure()) from None
        for record in records:
            logging.getLogger(record.name).handle(record)
        if kind == "sent":
            return value
        raise value if isinstance(value, LayoutselError) else CopyFailed(value)

    def receive_into(self, buffer: memoryview) -> None:
        """Read bytes that the work sends after its first object; raises :class:`CopyFailed`."""
        try:
            if not self._connection.poll(max(self._deadline - time.monotonic(), _POLL_S)):
                raise CopyFailed(self._timed_out())
            self._connection.recv_bytes_into(buffer)
        except (EOFError, OSError):
            raise CopyFailed(self._exit_failure()) from None

    def _wait(self) -> None:
        """Wait until there is data to read, or the copy has ended."""
        used, since = -1, time.monotonic()
        while not self._connection.poll(_POLL_S):
            now = time.monotonic()
            if now >= self._deadline:
                raise CopyFailed(self._timed_out())
            before, used = used, _processor_time(self._process)
            if used != before:
                since = now
            elif now - since >= _STUCK_S and not _descendants(self._process):
                raise Stuck("a copy of this process waits for a lock that another thread held")

    def _timed_out(self) -> Failure:
        reason = f"it took longer than {self._limits.time_s:.3g} s"
        return Failure(kind=FailureKind.TIMEOUT, reason=reason)

    def _exit_failure(self) -> Failure:
        """Failure of a copy that ended without an answer."""
        with contextlib.suppress(ChildProcessError):
            _, status = os.waitpid(self._process, 0)
            self._process = 0
            code = os.waitstatus_to_exitcode(status)
            if code == -signal.SIGABRT:  # LLVM aborts a process that has no memory left
                room = f"{self._limits.memory_bytes / 1e6:,.0f} MB"
                reason = (
                    f"its process aborted, perhaps because it needed more than {room} of memory"
                )
                return Failure(kind=FailureKind.CRASH, reason=reason)
            return Failure.of_exit(code, "")
        return Failure(kind=FailureKind.ENVIRONMENT, reason="its process ended")

    def _end(self) -> None:
        self._connection.close()
        if self._process:
            # A compiler or linker that the copy started does not end with it.
            for process in (self._process, *_descendants(self._process)):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process, signal.SIGKILL)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(self._process, 0)
            self._process = 0


def _processor_time(process: int) -> int:
    """Clock ticks of processor time of a process and its finished children; -1 if unknown."""
    try:
        text = Path(f"/proc/{process}/stat").read_text(encoding="ascii", errors="replace")
    except OSError:
        return -1
    return sum(map(int, text.rpartition(")")[2].split()[11:15]))


def _descendants(process: int) -> list[int]:
    """List the running processes that a process and its children have started."""
    found: list[int] = []
    for file in Path(f"/proc/{process}/task").glob("*/children"):
        with contextlib.suppress(OSError):  # the thread has ended
            found += map(int, file.read_text(encoding="ascii").split())
    return found + [other for child in found for other in _descendants(child)]


def _run_copy(work: Work, connection: Connection, limits: Limits, parent: int) -> NoReturn:
    """Run the work in the copy; exit after it, or when the parent exits."""
    try:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends this process on Ctrl-C
        gc.freeze()  # a garbage collection would write to, and so copy, all shared pages
        _limit_memory(limits.memory_bytes)
        records = _logged()
        arguments = (work, _Sender(connection, records), limits)
        context = contextvars.copy_context()
        thread = threading.Thread(target=context.run, args=(_answer, *arguments), daemon=True)
        thread.start()
        while thread.is_alive() and os.getppid() == parent:
            thread.join(_POLL_S)
    finally:
        os._exit(0)


class _Sender(Connection):
    """A connection that sends the log records so far together with the first object."""

    def __init__(self, connection: Connection, records: SimpleQueue[logging.LogRecord]) -> None:
        super().__init__(os.dup(connection.fileno()), readable=False)
        self._records = records
        self.has_answered = False

    def send(self, obj: Any) -> None:
        """Send a result of the work."""
        self.answer("sent", obj)

    def answer(self, kind: str, value: Any) -> None:
        """Send the first object with its kind: ``sent`` or ``raised``."""
        self.has_answered = True
        records = [self._records.get() for _ in range(self._records.qsize())]
        super().send((kind, value, records))


def _answer(work: Work, sender: _Sender, limits: Limits) -> None:
    try:
        work(sender)
    except Exception as error:  # the parent reports it, whatever it is
        if not sender.has_answered:
            sender.answer("raised", _portable(error, limits))


def _portable(error: Exception, limits: Limits) -> LayoutselError | Failure:
    """A picklable error: layoutsel's own unchanged, any other as a failure."""
    if isinstance(error, LayoutselError):
        with contextlib.suppress(Exception):  # classes with other arguments do not unpickle
            pickle.loads(pickle.dumps(error))
            return error
    logger.debug("%s", traceback.format_exc())
    lines = str(error).strip().splitlines() or [""]
    failure = Failure.of_exception(error, f"{type(error).__name__}: {lines[-1]}")
    if failure.kind is FailureKind.ENVIRONMENT and isinstance(error, MemoryError):
        reason = f"it took more than {limits.memory_bytes / 1e6:,.0f} MB of memory"
        return Failure(kind=failure.kind, reason=reason)
    return failure


def _limit_memory(further_bytes: int) -> None:
    """Limit the memory of this process to its present size plus `further_bytes`."""
    lines = Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines()
    now = next((int(line.split()[1]) << 10 for line in lines if line.startswith("VmData")), None)
    _, most = resource.getrlimit(resource.RLIMIT_DATA)
    if now is not None:
        limit = now + further_bytes
        limit = limit if most == resource.RLIM_INFINITY else min(limit, most)
        resource.setrlimit(resource.RLIMIT_DATA, (limit, most))


def _logged() -> SimpleQueue[logging.LogRecord]:
    """Redirect all logging from now on into a queue."""
    records: SimpleQueue[logging.LogRecord] = SimpleQueue()
    handler = QueueHandler(records)
    for one in logging.root.manager.loggerDict.values():
        if isinstance(one, logging.Logger):
            one.handlers = [] if one.propagate else [handler]
    logging.root.handlers = [handler]
    return records
