"""Workers that run stages of a model: threads, affinity, primitives and a virtual machine of their own."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable, Collection, Sequence
from types import TracebackType
from typing import Any

import tvm_ffi

from layoutsel.device.cancellation import CancelToken
from layoutsel.device.entry_points import EntryPoint, Program
from layoutsel.device.own_threads import FORK_WAITS_S
from layoutsel.device.threads import available_cores
from layoutsel.device.turns import Turn
from layoutsel.device.worker_jobs import LIMIT_S, Job, StageFuture, WorkerSettings
from layoutsel.device.worker_loop import Loop
from layoutsel.errors import WorkerClosed
from tvm_passes.errors import LayoutselError


class TensorWorker:
    """Runs stages of one model, one after the other, on threads of its own. Several workers run at once.

    The caller's threads, OpenMP settings and affinity stay as they are. A context manager: its end is :meth:`close`. In a
    forked process it starts threads of its own; runs that the parent had given to it end there alone.

    Parameters
    ----------
    program
        The model's code and weights.
    threads
        Number of threads that it computes on.
    cores
        Cores that these may use; None for all of this process.
    limit_s
        Longest time of a run, seconds. A run with a token is then cancelled. One without goes on, as compiled code cannot
        be interrupted: its future fails, and the worker takes no other run until it ends.

    Raises
    ------
    LayoutselError
        If the number of threads, the cores or the limit make no sense here.
    """

    def __init__(
        self,
        program: Program,
        *,
        threads: int = 1,
        cores: Collection[int] | None = None,
        limit_s: float = LIMIT_S,
    ) -> None:
        self._settings = _settings(threads, cores, limit_s)
        self.stages = {entry.name: entry for entry in program.entries}
        """The stages that it can run, by name."""
        self._program = program
        self._turn = Turn("gave a run to a worker", FORK_WAITS_S)
        self._loop: Loop | None = None
        self._is_closed = False

    @property
    def settings(self) -> WorkerSettings:
        """Threads, cores and limit."""
        return self._settings

    def start(
        self,
        stage: str,
        inputs: Sequence[tvm_ffi.Tensor],
        token: CancelToken | None = None,
        finish: Callable[[list[tvm_ffi.Tensor]], Any] = list,
    ) -> StageFuture:
        """Run a stage after the runs before it; does not wait.

        Parameters
        ----------
        stage
            Its name.
        inputs
            In the host's memory, in the order of the stage's inputs, of their shapes and types.
        token
            Stops the run between two sub-graphs, or before it begins.
        finish
            Makes the future's result of the stage's results, in the worker's thread.

        Raises
        ------
        LayoutselError
            If the model has no such stage.
        WorkerClosed
            If the worker was closed.
        RunTimeout
            If a run that took too long still goes on.
        """
        entry = self.entry(stage)
        job = Job(entry=entry, inputs=inputs, token=token, finish=finish)
        with self._turn:
            if self._is_closed:
                raise WorkerClosed("the worker was closed: make another one")
            self._loop_here().put(job)
        return job.future

    def entry(self, stage: str) -> EntryPoint:
        """The stage of that name; raises :class:`LayoutselError` where there is none."""
        if stage not in self.stages:
            raise LayoutselError(
                f"the model has no stage {stage!r}; expected one of {', '.join(self.stages)}"
            )
        return self.stages[stage]

    def close(self, *, cancel: bool = False) -> None:
        """End the threads once all runs have ended.

        Parameters
        ----------
        cancel
            Cancel the token of the run that goes on, if any, and fail those that wait with :class:`WorkerClosed`.
        """
        with self._turn:
            self._is_closed = True
            if self._loop is not None:
                self._loop.stop(cancel=cancel)

    def __enter__(self) -> TensorWorker:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _loop_here(self) -> Loop:
        """The threads in this process; those of a parent are not here."""
        if self._loop is None or self._loop.process != os.getpid():
            self._loop = Loop(self._program, self._settings)
            weakref.finalize(self, self._loop.leave).atexit = False
        return self._loop


def _settings(threads: int, cores: Collection[int] | None, limit_s: float) -> WorkerSettings:
    known = set(available_cores())
    if threads < 1:
        raise LayoutselError(f"a worker of {threads} threads: expected 1 or more")
    if cores is not None and (not cores or not known.issuperset(cores)):
        raise LayoutselError(
            f"a worker on cores {sorted(cores)}: expected some of {sorted(known)}, which this process may use"
        )
    if not 0 < limit_s <= threading.TIMEOUT_MAX:
        raise LayoutselError(f"a worker with a limit of {limit_s} s: expected a positive number")
    return WorkerSettings(threads=threads, cores=tuple(sorted(cores or ())), limit_s=limit_s)
