"""One thread that owns the state of a controller: it runs functions of others, and timers."""

from __future__ import annotations

import heapq
import itertools
import logging
import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, wait

from layoutsel.errors import WorkerClosed

logger = logging.getLogger(__name__)

_LOOK_S = 0.1
"""Time between two looks whether the loop has ended under a waiting call, seconds."""
_IDLE_S = 60.0
"""Longest wait for an event, seconds."""


class EventLoop:
    """Runs functions one after the other on its own thread.

    Parameters
    ----------
    name
        Name of the thread.
    at_end
        Called with the reason when the loop ends, on its thread.
    look_s
        Longest sleep while a timer is set, seconds: short ones keep the processor awake, and timers
        are less late.
    """

    def __init__(
        self, name: str, at_end: Callable[[BaseException], None], look_s: float = _IDLE_S
    ) -> None:
        self._at_end, self._sleep_s = at_end, look_s
        self._actions: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._timers: list[tuple[float, int, Callable[[], None]]] = []
        self._number = itertools.count()
        self.is_closed = False
        """True once no function runs any more."""
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    def put(self, action: Callable[[], None]) -> None:
        """Run a function soon; safe from any thread."""
        self._actions.put(action)

    def call(self, action: Callable[[], None]) -> None:
        """Run a function and wait for its end; not from the loop's own thread.

        Raises
        ------
        WorkerClosed
            If the loop is closed, or ends before the function does.
        """
        done: Future[None] = Future()

        def run() -> None:
            action()
            done.set_result(None)

        self.put(run)
        while not self.is_closed:
            if wait([done], _LOOK_S).done:
                return
        raise WorkerClosed("the distribution is closed: deploy it again")

    def at(self, time_s: float, action: Callable[[], None]) -> None:
        """Run a function at a time of the monotonic clock; from the loop's own thread alone."""
        heapq.heappush(self._timers, (time_s, next(self._number), action))

    def close(self) -> None:
        """End the thread after the current function."""
        self.is_closed = True
        self._actions.put(None)
        self._thread.join(_IDLE_S)

    def _work(self) -> None:
        try:
            while self._step():
                pass
            self._at_end(WorkerClosed("the distribution was closed before the answer"))
        except BaseException as error:
            # Requests must not wait for a loop that has failed.
            logger.exception("the controller failed")
            self.is_closed = True
            self._at_end(error)

    def _step(self) -> bool:
        """Run the next function and all timers that are due; False at the end."""
        wait_s = _IDLE_S
        if self._timers:
            wait_s = min(self._timers[0][0] - time.monotonic(), self._sleep_s)
        try:
            action = self._actions.get(timeout=max(0.0, wait_s))
        except queue.Empty:
            pass
        else:
            if action is None:
                return False
            action()
        while self._timers and self._timers[0][0] <= time.monotonic():
            heapq.heappop(self._timers)[2]()
        return True
