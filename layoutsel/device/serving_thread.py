"""Threads that serve requests inside one call of the plugin, on their own cores."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress

from layoutsel.device.thread_ends import ending, living
from layoutsel.device.threads import set_threads
from layoutsel.device.worker_machines import own_primitives

logger = logging.getLogger(__name__)


class ServingThread:
    """A thread inside a call of the plugin, which does not hold Python's lock.

    Parameters
    ----------
    serve
        Function of the plugin that returns once `close` was called.
    close
        Function of the plugin that returns at once.
    threads
        Number of threads that the calls compute on.
    cores
        Cores of these threads; empty for all cores of this process.
    limit_s
        Longest wait of :meth:`stop`, seconds.
    """

    def __init__(
        self,
        serve: Callable[[], None],
        close: Callable[[], None],
        *,
        threads: int,
        cores: Sequence[int],
        limit_s: float,
    ) -> None:
        self._close, self._limit_s = close, limit_s
        self._process = os.getpid()
        self._thread = threading.Thread(
            target=_run, args=(serve, threads, tuple(cores)), name="layoutsel-serve", daemon=True
        )
        self._thread.start()
        living.add(self)
        ending.add(self._thread)

    @property
    def is_here(self) -> bool:
        """True if the thread belongs to this process, which may have been forked since."""
        return self._process == os.getpid()

    @property
    def is_alive(self) -> bool:
        """True until the thread has ended."""
        return self.is_here and self._thread.is_alive()

    def stop(self, *, cancel: bool = True, limit_s: float | None = None) -> None:
        """End the thread and wait for it.

        Parameters
        ----------
        cancel
            Without effect: an active request ends at its next sub-graph in any case.
        limit_s
            Longest wait, seconds; that of the thread if None. Then the thread is abandoned.
        """
        if not self.is_here:
            return
        self._close()
        self._thread.join(self._limit_s if limit_s is None else limit_s)
        if self._thread.is_alive():
            logger.warning("a sub-graph of a branch does not end; its thread is abandoned")
            living.discard(self)
            ending.discard(self._thread)


def _run(serve: Callable[[], None], threads: int, cores: tuple[int, ...]) -> None:
    if cores:
        # This process may have lost the cores since. 0 is the calling thread, not the process.
        with suppress(OSError):
            os.sched_setaffinity(0, cores)
    set_threads(threads, cores or None)
    with own_primitives():
        serve()
