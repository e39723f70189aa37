"""Locks that do not outlive their holders: a fork waits for them, and the child never waits for a thread that it lacks.

A fork copies the calling thread alone. A lock that another thread holds stays locked in the child for ever, and what it
guards stays half done.
"""

from __future__ import annotations

import os
import threading
import time
import weakref
from types import TracebackType

from layoutsel.errors import ForkedError


class Turn:
    """A lock for use in a ``with`` statement; the thread that holds it may take it again.

    Parameters
    ----------
    what
        What the holder does, for the error's message: "ran the model".
    fork_waits_s
        Longest time that a fork waits for the holder. If that does not suffice, the child cannot take the lock.
    """

    def __init__(self, what: str, fork_waits_s: float) -> None:
        self.what = what
        self.fork_waits_s = fork_waits_s
        self._lock = threading.RLock()
        self._is_lost = False
        with _forks.gate:  # a fork walks through them
            _forks.turns.add(self)

    def __enter__(self) -> None:
        """Wait for the lock.

        Raises
        ------
        ForkedError
            If a thread held it when this process was forked, which is not in this process.
        """
        with _forks.gate:
            pass  # a fork that waits for its turn comes first
        if self._is_lost:
            raise ForkedError(
                f"this process was forked while another thread {self.what}, and cannot go on with what it left: "
                "fork before that or after it, or start the process with 'spawn'"
            )
        self._lock.acquire()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Let the next one in."""
        self._lock.release()

    def wait(self, since_s: float) -> bool:
        """Take the lock for a fork; whether it was free in time."""
        left_s = since_s + self.fork_waits_s - time.monotonic()
        return self._lock.acquire(timeout=max(left_s, 0.0))

    def go_on(self) -> None:
        """Give the lock back after the fork."""
        self._lock.release()

    def renew(self, *, is_free: bool) -> None:
        """Begin in a forked process: only what was free can be taken."""
        self._lock = threading.RLock()
        self._is_lost = self._is_lost or not is_free


def came_through_fork() -> bool:
    """True if the calling thread was there when this process was forked: pools that it used are not here any more."""
    return getattr(_forks.here, "came_through", False)


class _Forks:
    """All turns when the process forks."""

    def __init__(self) -> None:
        self.turns: weakref.WeakSet[Turn] = weakref.WeakSet()
        self.gate = threading.Lock()
        self.here = threading.local()
        self._free: list[Turn] = []

    def before(self) -> None:
        """Wait for those that are taken."""
        self.gate.acquire()
        since_s = time.monotonic()
        self._free = [turn for turn in list(self.turns) if turn.wait(since_s)]

    def after_in_parent(self) -> None:
        """Go on."""
        for turn in self._free:
            turn.go_on()
        self._free = []
        self.gate.release()

    def after_in_child(self) -> None:
        """Replace the locks, whose other holders are not here."""
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
