"""Workers that run stages of a model with their own threads, affinity, primitives and machine."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import tvm_ffi

from layoutsel.core.closing import Closing
from layoutsel.device.cancellation import CancelToken, InFlight
from layoutsel.device.entry_points import Program, StageChain
from layoutsel.device.own_threads import FORK_WAITS_S
from layoutsel.device.threads import available_cores
from layoutsel.device.turns import Turn
from layoutsel.device.worker_jobs import LIMIT_S, Job, StageFuture
from layoutsel.device.worker_loop import Loop
from layoutsel.device.worker_machines import Machines, WorkerSettings
from layoutsel.errors import WorkerClosed
from tvm_passes.errors import LayoutselError


class TensorWorker(Closing):
    """A worker that runs stages of one model in order, on its own threads.

    Several workers run at the same time. The caller's threads, OpenMP settings and affinity stay
    unchanged. The end of a ``with`` block closes the worker. In a forked process, the worker
    starts new threads; runs of the parent end only in the parent.

    Parameters
    ----------
    program
        Code and weights of the model.
    threads
        Number of threads.
    cores
        Cores that the threads may use; all cores of this process if None.
    limit_s
        Time limit of a run, seconds. A run with a token is then cancelled. A run without a token
        continues, as compiled code cannot be interrupted: its future fails, and the worker rejects
        other runs until it ends.
    in_flight
        Device that the worker owns, with the limit of the work in its queue. Each of its stages
        ends when the device has ended, and a cancelled run waits for what is in the queue.

    Raises
    ------
    LayoutselError
        If the number of threads, the cores or the limit are out of range.
    """

    def __init__(
        self,
        program: Program,
        *,
        threads: int = 1,
        cores: Collection[int] | None = None,
        limit_s: float = LIMIT_S,
        in_flight: InFlight | None = None,
    ) -> None:
        self._settings = replace(_settings(threads, cores, limit_s), in_flight=in_flight)
        self.stages = {entry.name: entry for entry in program.entries}
        """Stages of the model, by name."""
        self._program = program
        self._chains: dict[tuple[str, ...], StageChain] = {}
        self._turn = Turn("gave a run to a worker", FORK_WAITS_S)
        self._loop: Loop | None = None
        self._is_closed = False

    def start(
        self,
        stage: str | Sequence[str],
        inputs: Sequence[tvm_ffi.Tensor],
        token: CancelToken | None = None,
        finish: Callable[[list[tvm_ffi.Tensor]], Any] = list,
    ) -> StageFuture:
        """Queue a run of a stage and return at once.

        Parameters
        ----------
        stage
            Name of the stage, or names of several in the model's order, which run as one.
        inputs
            Tensors in host memory, with the order, shapes and types of the inputs of :meth:`chain`.
        token
            Cancels the run between two sub-graphs, or before its start.
        finish
            Converts the stage's results to the future's result, on the worker's thread.

        Raises
        ------
        LayoutselError
            If the model has no such stages.
        WorkerClosed
            If the worker is closed.
        RunTimeout
            If an overdue run still occupies the worker.
        """
        chain = self.chain(stage)
        # A failed run's traceback would keep the variables of a nested function, but not these.
        work = partial(Machines.run_chain, chain=chain, inputs=inputs, token=token, finish=finish)
        return self.submit(chain.name, work, token)

    def submit(
        self, name: str, work: Callable[[Machines], Any], token: CancelToken | None = None
    ) -> StageFuture:
        """Queue work on the worker's thread and return at once.

        Parameters
        ----------
        name
            Name of the work, for messages.
        work
            Computes the future's result on the worker's virtual machines.
        token
            Cancelled when the work exceeds the time limit, or when the worker is closed with
            `cancel`. The work itself must obey it.

        Raises
        ------
        WorkerClosed
            If the worker is closed.
        RunTimeout
            If an overdue run still occupies the worker.
        """
        job = Job(name=name, work=work, token=token)
        with self._turn:
            if self._is_closed:
                raise WorkerClosed("the worker is closed: make another one")
            self._loop_here().put(job)
        return job.future

    def chain(self, stage: str | Sequence[str]) -> StageChain:
        """Describe what a run of a stage, or of several stages as one, takes and returns.

        Raises
        ------
        LayoutselError
            If the model has no such stages.
        """
        names = (stage,) if isinstance(stage, str) else tuple(stage)
        if names not in self._chains:
            self._chains[names] = StageChain.named(self._program.entries, names)
        return self._chains[names]

    def close(self, *, cancel: bool = False) -> None:
        """End the threads once all runs have ended.

        Parameters
        ----------
        cancel
            True to cancel the active run's token and to fail waiting runs with
            :class:`WorkerClosed`.
        """
        with self._turn:
            self._is_closed = True
            if self._loop is not None:
                self._loop.stop(cancel=cancel)

    def _loop_here(self) -> Loop:
        """Threads of this process; a forked process has none of its parent's."""
        if self._loop is None or self._loop.process != os.getpid():
            self._loop = Loop(self._program, self._settings)
            # Threads hold no reference to the worker: a forgotten worker ends its threads.
            weakref.finalize(self, self._loop.leave).atexit = False
        return self._loop


def _settings(threads: int, cores: Collection[int] | None, limit_s: float) -> WorkerSettings:
    known = set(available_cores())
    if threads < 1:
        raise LayoutselError(f"a worker of {threads} threads: expected 1 or more")
    if cores is not None and (not cores or not known.issuperset(cores)):
        raise LayoutselError(
            f"a worker on cores {sorted(cores)}: expected some of {sorted(known)}, "
            "which this process may use"
        )
    if not 0 < limit_s <= threading.TIMEOUT_MAX:
        raise LayoutselError(f"a worker with a limit of {limit_s} s: expected a positive number")
    return WorkerSettings(threads=threads, cores=tuple(sorted(cores or ())), limit_s=limit_s)
