"""Server of a multi-exit network: requests of many threads and streams, with deadlines."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import replace

from layoutsel.core.closing import Closing
from layoutsel.errors import DeadlineMissed, LayoutselError, RunTimeout, WorkerClosed
from layoutsel.exits.executor import ExitModel
from layoutsel.exits.exit_answer import ExitAnswer
from layoutsel.exits.load_aware import LoadAwareModel
from layoutsel.exits.server_statistics import ServerRecord, ServerStatistics
from layoutsel.runtime.streams import Request, in_order, inputs_of

logger = logging.getLogger(__name__)

QUEUE = 16
"""Default number of requests that wait."""
LIMIT_S = 60.0
"""Longest wait for a place in the queue, for an answer in a stream, and of the end, seconds."""


class ExitServer(Closing):
    """Answers requests of several threads in the order of their arrival; a context manager.

    With branches on other workers, two requests are in progress: each worker goes on to the next
    one as soon as it has ended or stopped the last one. Every request has a state of its own, so
    that no result reaches another one.

    Parameters
    ----------
    model
        The network; it stays open when the server is closed.
    queue
        Number of requests that wait; further callers are held back.
    deadline_ms
        Default deadline of a request after its arrival, milliseconds; None for none. At the
        deadline, the best result so far answers.

    Raises
    ------
    LayoutselError
        If the queue or the deadline is out of range.
    """

    def __init__(
        self,
        model: ExitModel | LoadAwareModel,
        *,
        queue: int = QUEUE,
        deadline_ms: float | None = None,
    ) -> None:
        if queue < 1:
            raise LayoutselError(f"server: got a queue of {queue} requests; expected at least 1")
        self.model = model
        """The network."""
        self.places = queue + model.places
        """Largest number of requests that wait or are in progress."""
        self._deadline_ms = _checked(deadline_ms)
        self._free = threading.Semaphore(self.places)
        self._pool = ThreadPoolExecutor(model.places, "layoutsel-server")
        self._open: set[Future[ExitAnswer]] = set()
        self._record = ServerRecord()
        self._is_closed = False

    def submit(self, request: Request, *, deadline_ms: float | None = None) -> Future[ExitAnswer]:
        """Queue a request; waits while there is no place.

        The future fails with :class:`DeadlineMissed` if there is no result at the deadline, and as
        a call of the model does. The time of its answer begins here. A future that is cancelled
        before its request begins gives its place back.

        Parameters
        ----------
        request
            Inputs: the only one, all by position, or all by name. They must not change before the
            answer.
        deadline_ms
            Deadline after the arrival, milliseconds, instead of the server's.

        Raises
        ------
        DeadlineMissed
            If there is no place by the deadline.
        RunTimeout
            If there is no place for a long time.
        WorkerClosed
            If the server is closed.
        """
        start_s = time.perf_counter()
        given_ms = self._deadline_ms if deadline_ms is None else _checked(deadline_ms)
        deadline_s = start_s + 1e-3 * given_ms
        self._take_place(min(LIMIT_S, 1e-3 * given_ms), deadline_s)
        try:
            self._check_open()
            future = self._pool.submit(self._answer, request, start_s, deadline_s)
        except BaseException as error:
            self._free.release()
            if isinstance(error, RuntimeError):  # closed by another thread since
                raise self._closed() from None
            raise
        self._open.add(future)
        future.add_done_callback(self._ended)
        return future

    def stream(
        self, requests: Iterable[Request], *, deadline_ms: float | None = None
    ) -> Iterator[ExitAnswer | DeadlineMissed]:
        """Answer many requests, and yield the answers in the order of the requests.

        A request without a result at its deadline yields the error, and the stream continues.
        Other errors end it. A request is taken from `requests` when there is a place for it, and
        its answer is yielded at the latest when as many others as there are places were taken.

        Parameters
        ----------
        requests
            Inputs of each request.
        deadline_ms
            Deadline of each request after its arrival, milliseconds, instead of the server's.
        """

        def submit(request: Request) -> Future[ExitAnswer]:
            try:
                return self.submit(request, deadline_ms=deadline_ms)
            except DeadlineMissed as error:
                failed = Future[ExitAnswer]()
                failed.set_exception(error)
                return failed

        for future in in_order(requests, submit, self.places):
            try:
                yield future.result(LIMIT_S)
            except DeadlineMissed as error:
                yield error

    def statistics(self) -> ServerStatistics:
        """Figures since the server was made."""
        return self._record.statistics()

    def close(self) -> None:
        """Fail the requests that wait, and let those in progress end, for a limited time."""
        self._is_closed = True
        self._pool.shutdown(wait=False)
        _, active = wait(list(self._open), LIMIT_S)
        if active:
            logger.warning("%d requests still run after %g s", len(active), LIMIT_S)

    def _take_place(self, limit_s: float, deadline_s: float) -> None:
        self._check_open()
        if self._free.acquire(timeout=limit_s):
            return
        if time.perf_counter() >= deadline_s:
            self._record.missed()
            raise DeadlineMissed(
                f"all {self.places} places of the server were taken until the deadline of a request"
            )
        raise RunTimeout(f"all {self.places} places of the server were taken for {limit_s:g} s")

    def _answer(self, request: Request, start_s: float, deadline_s: float) -> ExitAnswer:
        self._check_open()
        try:
            answer = self.model.by(deadline_s, *inputs_of(request))
        except DeadlineMissed:
            self._record.missed()
            raise
        except BaseException:
            self._record.failed()
            raise
        now_s = time.perf_counter()
        answer = replace(answer, us=1e6 * (now_s - start_s))
        self._record.answered(answer, is_late=now_s > deadline_s)
        return answer

    def _ended(self, future: Future[ExitAnswer]) -> None:
        self._open.discard(future)
        self._free.release()

    def _check_open(self) -> None:
        if self._is_closed:
            raise self._closed()

    def _closed(self) -> WorkerClosed:
        return WorkerClosed("the server is closed: make another one")


def _checked(deadline_ms: float | None) -> float:
    """Deadline after the arrival, milliseconds; infinite for none."""
    if deadline_ms is None:
        return math.inf
    if not deadline_ms > 0:
        raise LayoutselError(
            f"server: got a deadline of {deadline_ms:g} ms; expected a positive number or none"
        )
    return deadline_ms
