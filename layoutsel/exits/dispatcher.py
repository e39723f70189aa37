"""Threads of a server that take the requests that wait, and have the network answer them."""

from __future__ import annotations

import os
import threading
import time
import weakref
from collections.abc import Sequence
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, TypeAlias

from layoutsel.device.worker_machines import own_primitives
from layoutsel.errors import ForkedError, WorkerClosed
from layoutsel.exits.pace import Pace
from layoutsel.exits.waiting import WaitingRequest

if TYPE_CHECKING:
    from layoutsel.exits.executor import ExitModel
    from layoutsel.exits.load_aware import LoadAwareModel

Queue: TypeAlias = SimpleQueue[WaitingRequest | None]
"""Requests in the order of their arrival; None ends a thread."""


class Dispatcher:
    """Answers requests in the order of their arrival.

    A thread that becomes free takes what waits at that moment, up to the largest batch. No request
    waits for others to arrive. The threads end when this object is forgotten.

    Parameters
    ----------
    models
        Copies of the network, each with threads of its own.
    most
        Largest number of requests at once.
    pace
        Takes the times of single requests.
    """

    def __init__(self, models: Sequence[ExitModel | LoadAwareModel], most: int, pace: Pace) -> None:
        self._queue: Queue = SimpleQueue()
        serving = [model for model in models for _ in range(model.places)]
        serve = _serve if len(models) == 1 else _serve_apart
        self._threads = [
            threading.Thread(
                target=serve,
                args=(self._queue, model, most, pace),
                name=f"layoutsel-server_{number}",
                daemon=True,
            )
            for number, model in enumerate(serving)
        ]
        self._is_started = False
        self._process = os.getpid()
        self._turn = threading.Lock()
        self._end = weakref.finalize(self, _end, self._queue)
        self.is_closed = False
        """True after :meth:`close`."""

    def check(self) -> None:
        """Reject requests that no thread would take.

        Raises
        ------
        WorkerClosed
            After :meth:`close`.
        ForkedError
            In a forked process, which has no copies of the threads.
        """
        if self.is_closed:
            raise WorkerClosed("the server is closed: make another one")
        if self._is_started and self._process != os.getpid():
            raise ForkedError(
                "this process was forked after the first request of a server, and has none of its "
                "threads: make another server"
            )

    def put(self, request: WaitingRequest) -> None:
        """Queue a request; it fails if the dispatcher is closed."""
        if not self._is_started:
            self._start()
        self._queue.put(request)
        if self.is_closed:  # closed since the caller looked: nobody may take it any more
            _fail_all(self._queue)

    def close(self, limit_s: float) -> Sequence[threading.Thread]:
        """Fail the requests that wait, and return threads that do not end within a time limit."""
        self.is_closed = True
        _fail_all(self._queue)
        self._end()
        with self._turn:
            started = self._threads if self._is_started else []
        for thread in started:
            if thread is not threading.current_thread():
                thread.join(limit_s)
        return [thread for thread in started if thread.is_alive()]

    def _start(self) -> None:
        with self._turn:
            if not self._is_started:
                self._is_started, self._process = True, os.getpid()
                for thread in self._threads:
                    thread.start()


def _serve(queue: Queue, model: ExitModel | LoadAwareModel, most: int, pace: Pace) -> None:
    """Answer requests until the end of the queue."""
    while (first := _next(queue)) is not None:
        start_s = time.perf_counter()
        requests = [first]
        try:
            _join(requests, queue, model, most)
            model.answer_all(requests)
        except BaseException as error:  # it belongs to those who wait
            for request in requests:
                request.fail(error)
        if len(requests) == 1:
            pace.add(1e6 * (time.perf_counter() - start_s))
        del first, requests  # an idle thread keeps no request


def _serve_apart(queue: Queue, model: ExitModel | LoadAwareModel, most: int, pace: Pace) -> None:
    """Answer requests while other threads answer some with another copy of the network."""
    with own_primitives():
        _serve(queue, model, most, pace)


def _next(queue: Queue) -> WaitingRequest | None:
    """Wait for a request; None at the end of the queue."""
    while (one := queue.get()) is not None:
        if one.begin():
            return one
    _end(queue)  # for the next thread
    return None


def _join(
    requests: list[WaitingRequest],
    queue: Queue,
    model: ExitModel | LoadAwareModel,
    most: int,
) -> None:
    """Take requests that wait as well, as many as the model answers at once."""
    waiting = min(1 + queue.qsize(), most)
    wanted = model.count_at_once(waiting) if waiting > 1 else 1
    with suppress(Empty):
        while len(requests) < wanted:
            one = queue.get_nowait()
            if one is None:
                _end(queue)
                return
            if one.begin():
                requests.append(one)


def _end(queue: Queue) -> None:
    queue.put(None)


def _fail_all(queue: Queue) -> None:
    """Fail the requests that wait; the end of the queue stays in it."""
    is_ended = False
    with suppress(Empty):
        while True:
            one = queue.get_nowait()
            if one is None:
                is_ended = True
            elif one.begin():
                one.fail(WorkerClosed("the server is closed: make another one"))
    if is_ended:
        _end(queue)
