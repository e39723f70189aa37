"""A model's calls: one at a time, on as many threads as it was compiled for, in this process and in forked ones.

A fork copies the calling thread alone. OpenMP's pool, TVM's pool and locks of other threads are then dead in the child, and
whoever waits for them waits for ever. Therefore a fork waits until no call runs, and the thread that forked computes on a
thread of the model's own in the child, for which new pools are started.
"""

from __future__ import annotations

import os
import threading
import time
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from layoutsel.errors import ForkedError
from layoutsel.runtime.threads import set_threads, shares_openmp
from tvm_passes.onednn.plugin import limited_to

FORK_WAITS_S = 10.0
"""Longest time that a fork waits for calls to end."""


class OwnThreads:
    """The threads that a model computes on. The caller's settings, its affinity included, stay as they are.

    Parameters
    ----------
    count
        How many they are.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self._turn = threading.RLock()
        self._thread: ThreadPoolExecutor | None = None
        self._was_interrupted = False
        _forks.known.add(self)

    def run(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call `function` once no other call runs.

        Raises
        ------
        ForkedError
            If the process was forked while another thread ran a call that did not end.
        """
        with _forks.gate:
            pass  # a fork that waits for its turn comes first
        with self._turn:
            if self._was_interrupted:
                raise ForkedError(
                    f"the model cannot be used in this process: it was forked while a call ran for more than "
                    f"{FORK_WAITS_S:g} s. Load the model in this process, or start it with 'spawn'"
                )
            if shares_openmp() and not _forks.came_through():
                with limited_to(self.count):
                    return function(*arguments)
            return self._on_own_thread(function, *arguments)

    def _on_own_thread(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call `function` on a thread whose pools and affinity are the model's."""
        if self._thread is None:
            self._thread = ThreadPoolExecutor(
                1, "layoutsel", initializer=set_threads, initargs=(self.count,)
            )
        return self._thread.submit(function, *arguments).result()

    def wait(self, until_s: float) -> bool:
        """Keep calls from beginning; whether none runs."""
        return self._turn.acquire(timeout=max(until_s - time.monotonic(), 0.0))

    def go_on(self) -> None:
        """Let calls begin."""
        self._turn.release()

    def renew(self, *, was_interrupted: bool) -> None:
        """Begin as the only thread of a forked process."""
        self._turn = threading.RLock()
        self._thread = None
        self._was_interrupted = was_interrupted or self._was_interrupted


class _Forks:
    """All models' threads when the process forks."""

    def __init__(self) -> None:
        self.known: weakref.WeakSet[OwnThreads] = weakref.WeakSet()
        self.gate = threading.Lock()
        self._here = threading.local()
        self._waiting: list[OwnThreads] = []

    def came_through(self) -> bool:
        """Whether the calling thread was there when this process was forked."""
        return getattr(self._here, "came_through", False)

    def before(self) -> None:
        """Wait for the calls that run."""
        self.gate.acquire()
        until_s = time.monotonic() + FORK_WAITS_S
        self._waiting = [threads for threads in list(self.known) if threads.wait(until_s)]

    def after_in_parent(self) -> None:
        """Go on."""
        for threads in self._waiting:
            threads.go_on()
        self._waiting = []
        self.gate.release()

    def after_in_child(self) -> None:
        """Forget threads and locks that are not here any more."""
        waiting = {id(threads) for threads in self._waiting}
        for threads in list(self.known):
            threads.renew(was_interrupted=id(threads) not in waiting)
        self._waiting = []
        self._here.came_through = True
        self.gate = threading.Lock()


_forks = _Forks()
os.register_at_fork(
    before=_forks.before,
    after_in_parent=_forks.after_in_parent,
    after_in_child=_forks.after_in_child,
)
