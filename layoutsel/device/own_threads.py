"""Threads of a model: one call at a time, with the thread count that it was compiled for."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from layoutsel.device.threads import set_threads, shares_openmp
from layoutsel.device.turns import Turn, came_through_fork
from tvm_passes.onednn.plugin import set_num_threads

FORK_WAITS_S = 10.0
"""Longest wait of a fork for a call to end, seconds."""


class OwnThreads:
    """Threads that a model computes on; the caller's settings and affinity stay unchanged.

    Calls run on a separate thread with its own pools in two cases. Without the plugin, TVM's pool
    belongs to the calling thread, pins it, and cannot be ended in a forked process. In a forked
    process, OpenMP's pool does not work in the thread that forked.

    Parameters
    ----------
    count
        Number of threads.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self.turn = Turn("ran the model", FORK_WAITS_S)
        self._thread: ThreadPoolExecutor | None = None
        self._process = os.getpid()

    def run(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call `function` after any other call has ended.

        Raises
        ------
        ForkedError
            If another thread ran a call when this process was forked, and did not end in time.
        """
        with self.turn:
            if shares_openmp() and not came_through_fork():
                before = set_num_threads(self.count)
                try:
                    return function(*arguments)
                finally:
                    set_num_threads(before)
            return self._own_thread().submit(function, *arguments).result()

    def _own_thread(self) -> ThreadPoolExecutor:
        """Thread for the model's calls, made again in a forked process."""
        if self._thread is None or self._process != os.getpid():
            self._thread = ThreadPoolExecutor(
                1, "layoutsel", initializer=set_threads, initargs=(self.count,)
            )
            self._process = os.getpid()
        return self._thread
