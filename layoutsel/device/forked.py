"""Work in a copy of this process, within limits of time and memory: its memory goes back to the system when it ends.

The copy inherits all that the work needs, such as a session, its weights and units that were registered at run time, and
shares their memory until it writes there. It runs the work on a new thread: OpenMP's pool is dead in the thread that
forked. Another thread of the caller may have held a lock when the process was copied, which nobody gives back in the copy.
The copy then stops using the processor, which is noticed (:class:`Stuck`).
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
"""Time between two looks at a copy's processor time, and at whether its parent still lives."""
_STUCK_S = 20.0
"""Time without any use of the processor after which a copy waits for a lock that nobody gives back."""

Work = Callable[[Connection], None]
"""What a copy does; it sends its results."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a copy may take."""

    time_s: float
    memory_bytes: int
    """Memory beyond that of the process that is copied."""


class Stuck(Exception):
    """A copy that cannot go on, or that cannot be made: the work has to be done in this process."""


class CopyFailed(Exception):
    """A copy that met a limit, crashed, or raised an error that is not layoutsel's own.

    Parameters
    ----------
    failure
        Kind and reason.
    """

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.reason)
        self.failure = failure


class Forked:
    """A copy of this process at work. A context manager, which ends it.

    Raises
    ------
    Stuck
        If the system does not let this process be copied.
    """

    def __init__(self, work: Work, limits: Limits) -> None:
        self._limits = limits
        self._deadline = time.monotonic() + limits.time_s
        self._connection, theirs = Pipe(duplex=False)
        parent = os.getpid()
        try:
            with warnings.catch_warnings():
                # Newer Pythons warn of threads in general; the work uses none of those that are here.
                warnings.simplefilter("ignore", DeprecationWarning)
                self._process = os.fork()
        except OSError as error:
            self._connection.close()
            theirs.close()
            raise Stuck(f"no process can be started: {error.strerror}") from error
        if self._process == 0:
            _be_the_copy(work, theirs, limits, parent)
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
        """Wait for the first object that the work sends; what it logged is logged here.

        Raises
        ------
        LayoutselError
            The one that the work raised.
        CopyFailed
            If it met a limit, crashed, or raised another error.
        Stuck
            If it does not use the processor any more.
        """
        self._wait()
        try:
            kind, value, records = self._connection.recv()
        except (EOFError, OSError):
            raise CopyFailed(self._obituary()) from None
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
            raise CopyFailed(self._obituary()) from None

    def _wait(self) -> None:
        """Return once there is something to read, or the copy ended."""
        used, since = -1, time.monotonic()
        while not self._connection.poll(_POLL_S):
            now = time.monotonic()
            if now >= self._deadline:
                raise CopyFailed(self._timed_out())
            before, used = used, _processor_time(self._process)
            if used != before:
                since = now
            elif now - since >= _STUCK_S:
                raise Stuck("a copy of this process waits for a lock that another thread held")

    def _timed_out(self) -> Failure:
        reason = f"it took longer than {self._limits.time_s:.3g} s"
        return Failure(kind=FailureKind.TIMEOUT, reason=reason)

    def _obituary(self) -> Failure:
        with contextlib.suppress(ChildProcessError):
            _, status = os.waitpid(self._process, 0)
            self._process = 0
            code = os.waitstatus_to_exitcode(status)
            if code == -signal.SIGABRT:  # LLVM ends a process that has no memory left
                room = f"{self._limits.memory_bytes / 1e6:,.0f} MB"
                reason = f"its process aborted, perhaps for want of more than {room} of memory"
                return Failure(kind=FailureKind.CRASH, reason=reason)
            return Failure.of_exit(code, "")
        return Failure(kind=FailureKind.ENVIRONMENT, reason="its process ended")

    def _end(self) -> None:
        self._connection.close()
        if self._process:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._process, signal.SIGKILL)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(self._process, 0)
            self._process = 0


def _processor_time(process: int) -> int:
    """Clock ticks that a process and its finished children used."""
    try:
        text = Path(f"/proc/{process}/stat").read_text(encoding="ascii", errors="replace")
    except OSError:
        return -1
    return sum(map(int, text.rpartition(")")[2].split()[11:15]))


def _be_the_copy(work: Work, connection: Connection, limits: Limits, parent: int) -> NoReturn:
    """Do the work and end, whatever happens; with the parent at the latest."""
    try:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends this process
        gc.freeze()  # a collection would write into all pages that are shared
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
    """A connection whose first object travels with what was logged before."""

    def __init__(self, connection: Connection, records: SimpleQueue[logging.LogRecord]) -> None:
        super().__init__(os.dup(connection.fileno()), readable=False)
        self._records = records
        self.has_answered = False

    def send(self, obj: Any) -> None:
        """Send what the work found."""
        self.answer("sent", obj)

    def answer(self, kind: str, value: Any) -> None:
        """Send the first object, and say of which kind it is."""
        self.has_answered = True
        records = [self._records.get() for _ in range(self._records.qsize())]
        super().send((kind, value, records))


def _answer(work: Work, sender: _Sender, limits: Limits) -> None:
    try:
        work(sender)
    except Exception as error:  # whatever it is, the parent tells of it
        if not sender.has_answered:
            sender.answer("raised", _portable(error, limits))


def _portable(error: Exception, limits: Limits) -> LayoutselError | Failure:
    """An error of layoutsel as it is, any other as a reason."""
    if isinstance(error, LayoutselError):
        with contextlib.suppress(Exception):  # such as one whose class takes other arguments
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
    """Let this process have so much more memory than now."""
    lines = Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines()
    now = next((int(line.split()[1]) << 10 for line in lines if line.startswith("VmData")), None)
    _, most = resource.getrlimit(resource.RLIMIT_DATA)
    if now is not None:
        limit = now + further_bytes
        limit = limit if most == resource.RLIM_INFINITY else min(limit, most)
        resource.setrlimit(resource.RLIMIT_DATA, (limit, most))


def _logged() -> SimpleQueue[logging.LogRecord]:
    """All that is logged from now on, in place of the handlers that are there."""
    records: SimpleQueue[logging.LogRecord] = SimpleQueue()
    handler = QueueHandler(records)
    for one in logging.root.manager.loggerDict.values():
        if isinstance(one, logging.Logger):
            one.handlers = [] if one.propagate else [handler]
    logging.root.handlers = [handler]
    return records
