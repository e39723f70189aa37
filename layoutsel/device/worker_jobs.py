"""Queued runs of a worker, and their futures."""

from __future__ import annotations

import contextlib
import os
import time
import traceback
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError
from dataclasses import dataclass, field
from typing import Any

from layoutsel.device.cancellation import CancelToken
from layoutsel.device.worker_machines import Machines
from layoutsel.errors import ForkedError

LIMIT_S = 600.0
"""Default time limit of a run, seconds."""


class StageFuture(Future[Any]):
    """Results of a run. A forked process cannot wait for them, as the worker is its parent's."""

    def __init__(self) -> None:
        super().__init__()
        self.ran_s = 0.0
        """Duration of the run on the worker's thread, seconds; 0 before its end."""
        self._process = os.getpid()

    def result(self, timeout: float | None = None) -> Any:
        """Wait for the results, by name.

        Raises
        ------
        Cancelled
            If the run's token was cancelled.
        RunTimeout
            If the run exceeded its worker's time limit.
        ForkedError
            If the run did not end before this process was forked.
        """
        self._check_process()
        return super().result(timeout)

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Wait for the end of the run and return its error, or None.

        Raises :class:`ForkedError` as :meth:`result` does.
        """
        self._check_process()
        return super().exception(timeout)

    def _check_process(self) -> None:
        # No lock here: a thread of the parent may have held it at the fork.
        if self._process != os.getpid() and self._state != "FINISHED":
            raise ForkedError(
                "this process was forked before the run of a stage ended, and does not get its "
                "results: give the run to the worker again"
            )


@dataclass(eq=False)
class Job:
    """A queued run."""

    name: str
    """Name of the stages that it runs, for messages."""
    work: Callable[[Machines], Any] | None
    """Computes the future's result on the worker's virtual machines; None once it has ended."""
    token: CancelToken | None
    """Token that may cancel the run."""
    future: StageFuture = field(default_factory=StageFuture)
    """Future of the run."""
    deadline_s: float = 0.0
    """Time limit as a value of the monotonic clock, seconds; set when the run begins."""

    def release(self) -> None:
        """Drop the references to the caller's tensors and functions."""
        self.work = None


def resolve(future: StageFuture, work: Callable[[], Any]) -> None:
    """Set a future to the result or error of `work`, unless it has ended already."""
    start_s = time.perf_counter()
    try:
        result = work()
        future.ran_s = time.perf_counter() - start_s
    except BaseException as error:
        # The frames may hold large results, and the caller may keep the future.
        traceback.clear_frames(error.__traceback__)
        del work
        fail(future, error)
    else:
        with contextlib.suppress(InvalidStateError):
            future.set_result(result)


def fail(future: StageFuture, error: BaseException) -> None:
    """Set a future to an error, unless it has ended already."""
    with contextlib.suppress(InvalidStateError):
        future.set_exception(error)
