"""A model's calls: one at a time, on as many threads as it was compiled for, in this process and in forked ones."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from layoutsel.device.threads import set_threads, shares_openmp
from layoutsel.device.turns import Turn, came_through_fork
from tvm_passes.onednn.plugin import limited_to

FORK_WAITS_S = 10.0
"""Longest time that a fork waits for a call to end."""


class OwnThreads:
    """The threads that a model computes on. The caller's settings, its affinity included, stay as they are.

    TVM's own pool, which computes where there is no plugin, belongs to the thread that calls it, pins it, and cannot be ended
    in a forked process. OpenMP's pool is dead in the thread that forked. In both cases calls run on a thread of the model's
    own, for which new pools are started.

    Parameters
    ----------
    count
        How many they are.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self.turn = Turn("ran the model", FORK_WAITS_S)
        self._thread: ThreadPoolExecutor | None = None
        self._process = os.getpid()

    def run(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call `function` once no other call runs.

        Raises
        ------
        ForkedError
            If the process was forked while another thread ran a call that did not end in time.
        """
        with self.turn:
            if shares_openmp() and not came_through_fork():
                with limited_to(self.count):
                    return function(*arguments)
            return self._own_thread().submit(function, *arguments).result()

    def _own_thread(self) -> ThreadPoolExecutor:
        """A thread whose pools and affinity are the model's; that of a parent process is not here."""
        if self._thread is None or self._process != os.getpid():
            self._thread = ThreadPoolExecutor(
                1, "layoutsel", initializer=set_threads, initargs=(self.count,)
            )
            self._process = os.getpid()
        return self._thread
