"""Locks that survive forks.

A fork copies the calling thread alone. A lock that another thread holds would stay locked in the
child for ever, and the data that it guards would stay half-written. A fork therefore waits for the
locks of this module. A child never waits for a thread of its parent.
"""

from __future__ import annotations

import os
import threading
import time
import weakref
from types import TracebackType

from layoutsel.errors import ForkedError


class Turn:
    """A reentrant lock for ``with`` statements that a fork waits for.

    Parameters
    ----------
    what
        Activity of the holder in the past tense, for the error message: "ran the model".
    fork_waits_s
        Longest wait of a fork for the holder, seconds. After it, the child cannot take the lock.
    """

    def __init__(self, what: str, fork_waits_s: float) -> None:
        self.what = what
        self.fork_waits_s = fork_waits_s
        self._lock = threading.RLock()
        self._is_lost = False
        with _forks.gate:  # a fork iterates over the set
            _forks.turns.add(self)

    def __enter__(self) -> None:
        """Wait for the lock.

        Raises
        ------
        ForkedError
            If another thread held the lock when this process was forked.
        """
        with _forks.gate:
            pass  # a fork that waits for the locks goes first
        if self._is_lost:
            raise ForkedError(
                f"this process was forked while another thread {self.what}, and cannot continue "
                "from its unfinished state: "
                "fork before that or after it, or start the process with 'spawn'"
            )
        self._lock.acquire()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Release the lock."""
        self._lock.release()

    def wait(self, since_s: float) -> bool:
        """Take the lock for a fork that began waiting at `since_s`; True if it was free in time."""
        left_s = since_s + self.fork_waits_s - time.monotonic()
        return self._lock.acquire(timeout=max(left_s, 0.0))

    def go_on(self) -> None:
        """Release the lock after the fork."""
        self._lock.release()

    def renew(self, *, is_free: bool) -> None:
        """Reset the lock in a forked process; a lock that was not free stays unusable."""
        self._lock = threading.RLock()
        self._is_lost = self._is_lost or not is_free


def came_through_fork() -> bool:
    """True if the calling thread is the one that forked; the thread pools that it used are gone."""
    return getattr(_forks.here, "came_through", False)


class _Forks:
    """Fork handlers for all turns of the process."""

    def __init__(self) -> None:
        self.turns: weakref.WeakSet[Turn] = weakref.WeakSet()
        self.gate = threading.Lock()
        self.here = threading.local()
        self._free: list[Turn] = []

    def before(self) -> None:
        """Wait for turns that are taken."""
        self.gate.acquire()
        since_s = time.monotonic()
        self._free = [turn for turn in list(self.turns) if turn.wait(since_s)]

    def after_in_parent(self) -> None:
        """Release the turns in the parent."""
        for turn in self._free:
            turn.go_on()
        self._free = []
        self.gate.release()

    def after_in_child(self) -> None:
        """Replace the locks, whose other holders do not exist in the child."""
        free = set(map(id, self._free))
        for turn in list(self.turns):
            turn.renew(is_free=id(turn) in free)
        self._free = []
        self.here.came_through = True
        self.gate = threading.Lock()


_forks = _Forks()
os.register_at_fork(
    before=_forks.before,
    after_in_parent=_forks.after_in_parent,
    after_in_child=_forks.after_in_child,
)
