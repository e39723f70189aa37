"""Thread of a worker in one process: queue, time limit and shutdown."""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import threading
import time
from collections.abc import Callable
from typing import Any

from layoutsel.device.entry_points import Program
from layoutsel.device.own_threads import FORK_WAITS_S
from layoutsel.device.thread_ends import ending, living
from layoutsel.device.turns import Turn
from layoutsel.device.worker_jobs import Job, fail, resolve
from layoutsel.device.worker_machines import Machines, WorkerSettings, own_primitives
from layoutsel.errors import RunTimeout, WorkerClosed
from tvm_passes.errors import LayoutselError

logger = logging.getLogger(__name__)

_POLL_S = 0.05
"""Time between two checks for an overdue run while closing, seconds."""


class Loop:
    """A worker's thread in one process; holds no reference to the worker, which may be freed."""

    def __init__(self, program: Program, settings: WorkerSettings) -> None:
        self.process = os.getpid()
        self.turn = Turn("ran a stage", FORK_WAITS_S)
        self._program, self._settings = program, settings
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._ended = threading.Event()
        self._current: Job | None = None
        self._overdue: Job | None = None
        self._threads = [
            threading.Thread(target=target, name=f"layoutsel-{name}", daemon=True)
            for name, target in (("worker", self._work), ("limit", self._watch))
        ]
        for thread in self._threads:
            thread.start()
        living.add(self)
        ending.update(self._threads)

    def put(self, job: Job) -> None:
        """Queue a job; raises :class:`RunTimeout` while an overdue run occupies the thread."""
        if (overdue := self._overdue) is not None and overdue is self._current:
            raise RunTimeout(self._still_busy(overdue))
        self._jobs.put(job)

    def leave(self) -> None:
        """Tell the threads to end after all jobs; returns at once."""
        if self.process == os.getpid():
            self._jobs.put(None)

    def stop(self, *, cancel: bool) -> None:
        """End this process's threads and wait for them; see :meth:`TensorWorker.close`."""
        if self.process != os.getpid() or self._ended.is_set():
            return
        if cancel:
            self._empty(WorkerClosed("the worker was closed before the run began"))
            if (job := self._current) is not None and job.token is not None:
                job.token.cancel()
        self._jobs.put(None)
        worker, watch = self._threads
        while worker.is_alive():
            worker.join(_POLL_S)
            if (overdue := self._overdue) is not None and overdue is self._current:
                logger.warning("%s; its thread is abandoned", self._still_busy(overdue))
                ending.difference_update(self._threads)
                return
        watch.join()

    def _work(self) -> None:
        try:
            with own_primitives():
                machines = Machines(self._program, self._settings)
                while (job := self._jobs.get()) is not None:
                    if job.future.set_running_or_notify_cancel():
                        with self.turn:
                            self._do(job, machines.run)
                    del job  # frees its tensors while the thread waits for the next job
        finally:
            self._ended.set()

    def _do(self, job: Job, run: Callable[[Any], Any]) -> None:
        job.deadline_s = time.monotonic() + self._settings.limit_s
        self._current = job
        try:
            resolve(job.future, lambda: run(job.work))
        finally:
            self._current = self._overdue = None
            # The error's traceback refers to the job: a cycle that only the collector would free.
            job.release()

    def _watch(self) -> None:
        """Abandon overdue runs.

        A run that begins during the wait has its whole limit left when the wait ends.
        """
        limit_s = self._settings.limit_s
        delay_s = limit_s
        while not self._ended.wait(delay_s):
            job = self._current
            left_s = job.deadline_s - time.monotonic() if job is not None else limit_s
            delay_s = left_s if left_s > 0 else limit_s
            if job is not None and left_s <= 0 and job is not self._overdue:
                self._give_up(job)

    def _give_up(self, job: Job) -> None:
        """Fail an overdue job and all waiting ones."""
        self._overdue = job
        if job.token is not None:
            job.token.cancel()
        limit_s = self._settings.limit_s
        error = RunTimeout(
            f"stage {job.name!r} ran longer than {limit_s:g} s, the limit of its worker: "
            f"set a higher limit, or give the run a token"
        )
        fail(job.future, error)
        self._empty(RunTimeout(self._still_busy(job)))

    def _empty(self, error: LayoutselError) -> None:
        """Fail the waiting jobs."""
        waiting = []
        with contextlib.suppress(queue.Empty):
            while True:
                waiting.append(self._jobs.get_nowait())
        for job in waiting:
            if job is None:
                self._jobs.put(None)  # keep the request to end
            else:
                fail(job.future, error)

    def _still_busy(self, job: Job) -> str:
        return (
            f"the worker still runs stage {job.name!r}, which exceeded "
            f"{self._settings.limit_s:g} s: "
            f"use another worker"
        )
