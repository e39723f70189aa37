"""Runs that a worker was asked for, and what it computes them with."""

from __future__ import annotations

import contextlib
import os
import traceback
from collections.abc import Callable, Sequence
from concurrent.futures import Future, InvalidStateError
from dataclasses import dataclass, field
from typing import Any

import tvm_ffi

from layoutsel.device.cancellation import CancelToken
from layoutsel.device.entry_points import EntryPoint
from layoutsel.errors import ForkedError

LIMIT_S = 600.0
"""Longest time of a run, seconds, unless a worker is told another."""


class StageFuture(Future[Any]):
    """The results of a run. In a forked process, where no worker makes them, asking for them is an error."""

    def __init__(self) -> None:
        super().__init__()
        self._process = os.getpid()

    def result(self, timeout: float | None = None) -> Any:
        """Wait for the results, by name.

        Raises
        ------
        Cancelled
            If the run's token was cancelled in time.
        RunTimeout
            If the run took longer than its worker allows.
        ForkedError
            If the run did not end before this process was forked.
        """
        self._check_process()
        return super().result(timeout)

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Wait for the end of the run: the error, or None; raises as :meth:`result` in a forked process."""
        self._check_process()
        return super().exception(timeout)

    def _check_process(self) -> None:
        # Without a lock: another thread of the parent may have held it.
        if self._process != os.getpid() and self._state != "FINISHED":
            raise ForkedError(
                "this process was forked before the run of a stage ended, and does not get its results: "
                "give the run to the worker again"
            )


@dataclass(frozen=True, kw_only=True)
class WorkerSettings:
    """What a worker computes with."""

    threads: int
    cores: tuple[int, ...]
    """Cores that its threads may use; empty: all of this process."""
    limit_s: float


@dataclass(eq=False)
class Job:
    """A run that was asked for."""

    entry: EntryPoint
    inputs: Sequence[tvm_ffi.Tensor]
    token: CancelToken | None
    finish: Callable[[list[tvm_ffi.Tensor]], Any]
    future: StageFuture = field(default_factory=StageFuture)
    deadline_s: float = 0.0

    def release(self) -> None:
        """Let go of the tensors, and of all that the caller gave."""
        self.inputs, self.finish = (), list


def resolve(future: StageFuture, work: Callable[[], Any]) -> None:
    """Give a future the result or error of `work`, unless its time was up before."""
    try:
        result = work()
    except BaseException as error:
        # Its frames may hold results, and the future may be kept for long.
        traceback.clear_frames(error.__traceback__)
        del work
        fail(future, error)
    else:
        with contextlib.suppress(InvalidStateError):
            future.set_result(result)


def fail(future: StageFuture, error: BaseException) -> None:
    """Give a future an error, unless it has ended."""
    with contextlib.suppress(InvalidStateError):
        future.set_exception(error)
