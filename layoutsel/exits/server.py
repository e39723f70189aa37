"""Server of a multi-exit network: requests of many threads and streams, with deadlines."""

from __future__ import annotations

import logging
import math
import sys
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future
from functools import partial
from queue import Empty, SimpleQueue

from layoutsel.core.closing import Closing
from layoutsel.errors import DeadlineMissed, LayoutselError, RunTimeout
from layoutsel.exits.dispatcher import Dispatcher
from layoutsel.exits.executor import ExitModel
from layoutsel.exits.exit_answer import ExitAnswer
from layoutsel.exits.load_aware import LoadAwareModel
from layoutsel.exits.pace import Pace
from layoutsel.exits.server_statistics import ServerRecord, ServerStatistics
from layoutsel.exits.waiting import FutureRequest, StreamRequest, WaitingRequest
from layoutsel.runtime.streams import Request

logger = logging.getLogger(__name__)

QUEUE = 16
"""Default number of requests that wait."""
LIMIT_S = 60.0
"""Longest wait for a place in the queue, for an answer in a stream, and of the end, seconds."""


class ExitServer(Closing):
    """Answers requests of several threads in the order of their arrival; a context manager.

    Requests that wait when a worker becomes free are answered as one batch, if the network was
    compiled for batches and one worker runs all of its exits. At each exit, the sure samples are
    answered, and the rest goes on as a smaller batch. No request waits for others to arrive.

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
    batch
        Largest number of requests to answer at once; that of the network if None.
    copies
        Number of copies of the network that answer at the same time, each on a thread of its own.
        They share code and weights. More than one for an :class:`ExitModel` on one worker alone.

    Raises
    ------
    LayoutselError
        If the queue, the deadline, the batch or the copies are out of range, or if the network
        has branches on other workers, or adapts to the load, and cannot be copied.
    """

    def __init__(
        self,
        model: ExitModel | LoadAwareModel,
        *,
        queue: int = QUEUE,
        deadline_ms: float | None = None,
        batch: int | None = None,
        copies: int = 1,
    ) -> None:
        for what, count in (("queue", queue), ("batch", 1 if batch is None else batch)):
            if count < 1:
                raise LayoutselError(
                    f"server: got a {what} of {count} requests; expected 1 or more"
                )
        models = _copies(model, copies)
        most = 1 if batch == 1 else min(model.prepare_batches(), batch or sys.maxsize)
        for other in models[1:]:
            other.prepare_batches()
        self.model = model
        """The network."""
        self.places = queue + max(sum(one.places for one in models), most * copies)
        """Largest number of requests that wait or are in progress."""
        self._deadline_ms = _checked(deadline_ms)
        # A queue of places takes a tenth of the time of a semaphore.
        self._free: SimpleQueue[None] = SimpleQueue()
        for _ in range(self.places):
            self._free.put(None)
        self._pace = Pace()
        self._dispatcher = Dispatcher(models, most, self._pace)
        self._may_run_here = most == copies == model.places == 1
        self._record = ServerRecord()

    def submit(self, request: Request, *, deadline_ms: float | None = None) -> Future[ExitAnswer]:
        """Queue a request; waits while there is no place.

        Without batches, a request that is the only one runs at once on the calling thread if
        requests take less time than a switch of threads; the future has then ended.

        The future fails with :class:`DeadlineMissed` if there is no result at the deadline, and as
        a call of the model does. The time of its answer begins here. A future that is cancelled
        gives its place back, and leaves its batch at the next exit.

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
        ForkedError
            If the process was forked after the first request.
        """
        start_s, deadline_s = self._take_place(deadline_ms)
        waiting = FutureRequest(request, start_s, deadline_s, self._record)
        waiting.future.add_done_callback(partial(_give_back, self._free))
        self._begin(waiting)
        return waiting.future

    def answer(self, request: Request, *, deadline_ms: float | None = None) -> ExitAnswer:
        """Answer a request; waits until then.

        It runs on the calling thread if no other request waits or is in progress, without a switch
        of threads. Parameters and errors are those of :meth:`submit` and of its future. A request
        that still waits for others at its deadline ends then; a future ends when its turn comes.
        """
        start_s, deadline_s = self._take_place(deadline_ms)
        waiting = StreamRequest(request, start_s, deadline_s, self._record, self._free)
        if self._is_alone:
            self._run_here(waiting)
        else:
            self._dispatcher.put(waiting)
        try:
            found = waiting.result(2 * LIMIT_S)
        finally:
            waiting.drop()  # after a time limit or an interrupt, nobody waits for it
        if isinstance(found, DeadlineMissed):
            raise found
        return found

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
        waiting: deque[StreamRequest] = deque()
        try:
            for request in requests:
                if self._is_better_here(len(waiting)):
                    while waiting:
                        yield waiting.popleft().result(LIMIT_S)
                try:
                    waiting.append(self._streamed(request, deadline_ms))
                except DeadlineMissed as error:
                    while waiting:
                        yield waiting.popleft().result(LIMIT_S)
                    yield error
                if len(waiting) >= self.places:
                    # One switch of threads for half of the queue, while the other half is answered.
                    waiting[self.places // 2].wait(LIMIT_S)
                    yield waiting.popleft().result(LIMIT_S)
                while waiting and waiting[0].has_ended:
                    yield waiting.popleft().result(LIMIT_S)
            while waiting:
                yield waiting.popleft().result(LIMIT_S)
        finally:
            for one in waiting:
                one.drop()

    def statistics(self) -> ServerStatistics:
        """Figures since the server was made."""
        return self._record.statistics()

    def close(self) -> None:
        """Fail the requests that wait, and let those in progress end, for a limited time."""
        if active := self._dispatcher.close(LIMIT_S):
            logger.warning("requests still run on %d threads after %g s", len(active), LIMIT_S)

    def _streamed(self, request: Request, deadline_ms: float | None) -> StreamRequest:
        """Queue a request of a stream."""
        start_s, deadline_s = self._take_place(deadline_ms)
        waiting = StreamRequest(request, start_s, deadline_s, self._record, self._free)
        self._begin(waiting)
        return waiting

    def _begin(self, waiting: WaitingRequest) -> None:
        """Queue a request, or run it here if another thread would begin with it too late."""
        if self._may_run_here and self._pace.is_quick and self._is_alone:
            self._run_here(waiting)
        else:
            self._dispatcher.put(waiting)

    def _is_better_here(self, waiting: int) -> bool:
        """True if a stream with so many requests had better end them, and go on on its thread."""
        others = self.places - self._free.qsize() - waiting
        return self._may_run_here and self._pace.is_quick and waiting > 0 and others <= 0

    def _run_here(self, waiting: WaitingRequest) -> None:
        start_s = time.perf_counter()
        self.model.answer_all([waiting])
        self._pace.add(1e6 * (time.perf_counter() - start_s))

    @property
    def _is_alone(self) -> bool:
        """True if the caller's request is the only one."""
        return self._free.qsize() == self.places - 1

    def _take_place(self, deadline_ms: float | None) -> tuple[float, float]:
        """Wait for a place; returns arrival and deadline by the performance counter, seconds."""
        start_s = time.perf_counter()
        self._dispatcher.check()
        given_ms = self._deadline_ms if deadline_ms is None else _checked(deadline_ms)
        deadline_s = start_s + 1e-3 * given_ms
        limit_s = min(LIMIT_S, 1e-3 * given_ms)
        try:
            self._free.get(timeout=limit_s)
        except Empty:
            if time.perf_counter() < deadline_s:
                raise RunTimeout(
                    f"all {self.places} places of the server were taken for {limit_s:g} s"
                ) from None
            self._record.failed(is_missed=True)
            raise DeadlineMissed(
                f"all {self.places} places of the server were taken until the deadline of a request"
            ) from None
        return start_s, deadline_s


def _copies(model: ExitModel | LoadAwareModel, count: int) -> Sequence[ExitModel | LoadAwareModel]:
    """Return a network and copies of it, as many as asked for in all."""
    if count < 1:
        raise LayoutselError(f"server: got {count} copies of the network; expected 1 or more")
    if count == 1:
        return [model]
    if not isinstance(model, ExitModel) or model.places > 1:
        raise LayoutselError(
            f"server: got {count} copies of a network that has branches on other workers, or an "
            "arrangement for each load; expected one on a single worker. Serve one copy"
        )
    return [model, *(model.copy() for _ in range(count - 1))]


def _give_back(free: SimpleQueue[None], _future: Future[ExitAnswer]) -> None:
    """Give the place of a request back."""
    free.put(None)


def _checked(deadline_ms: float | None) -> float:
    """Deadline after the arrival, milliseconds; infinite for none."""
    if deadline_ms is None:
        return math.inf
    if not deadline_ms > 0:
        raise LayoutselError(
            f"server: got a deadline of {deadline_ms:g} ms; expected a positive number or none"
        )
    return deadline_ms
