"""Requests that wait in a server, and the ways to their answers: a future, or a stream."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from queue import SimpleQueue

from layoutsel.errors import Cancelled, DeadlineMissed, RunTimeout
from layoutsel.exits.exit_answer import ExitAnswer
from layoutsel.exits.server_statistics import ServerRecord
from layoutsel.exits.signals import unset_signal
from layoutsel.runtime.streams import Request, inputs_of


class WaitingRequest(ABC):
    """A request from its arrival to its end: an answer, or an error. Later ends are ignored.

    Parameters
    ----------
    request
        Inputs.
    start_s, deadline_s
        Arrival and deadline by the performance counter, seconds.
    record
        Counts of the server.
    """

    __slots__ = ("_has_ended", "_record", "arguments", "deadline_s", "named", "start_s")

    def __init__(
        self, request: Request, start_s: float, deadline_s: float, record: ServerRecord
    ) -> None:
        self.arguments, self.named = inputs_of(request)
        self.start_s, self.deadline_s = start_s, deadline_s
        self._record = record
        self._has_ended = False

    @property
    @abstractmethod
    def is_wanted(self) -> bool:
        """False once nobody waits for the answer."""

    @abstractmethod
    def _end(self, result: ExitAnswer | BaseException) -> None:
        """Pass the result on."""

    def begin(self) -> bool:
        """Leave the queue; returns whether the request is still to be answered."""
        if self.is_wanted:
            return True
        self.leave()
        return False

    def answer(self, answer: ExitAnswer) -> None:
        """End with an answer, whose time is from the arrival on."""
        if not self._has_ended:
            self._has_ended = True
            now_s = time.perf_counter()
            answer.us = 1e6 * (now_s - self.start_s)
            self._record.answered(now_s, answer, is_late=now_s > self.deadline_s)
            self._end(answer)

    def fail(self, error: BaseException) -> None:
        """End with an error."""
        if not self._has_ended:
            self._has_ended = True
            self._record.failed(is_missed=isinstance(error, DeadlineMissed))
            self._end(error)

    def leave(self) -> None:
        """End a request that nobody waits for; it counts for nothing."""
        if not self._has_ended:
            self._has_ended = True
            self._end(Cancelled("a request was given up before its answer"))


class FutureRequest(WaitingRequest):
    """A request whose result goes to a future, which may be cancelled until then."""

    __slots__ = ("future",)

    def __init__(
        self, request: Request, start_s: float, deadline_s: float, record: ServerRecord
    ) -> None:
        super().__init__(request, start_s, deadline_s, record)
        self.future: Future[ExitAnswer] = Future()
        """Result."""

    @property
    def is_wanted(self) -> bool:
        """False once nobody waits for the answer."""
        return not self.future.cancelled()

    def _end(self, result: ExitAnswer | BaseException) -> None:
        if not self.future.set_running_or_notify_cancel():
            return
        if isinstance(result, ExitAnswer):
            self.future.set_result(result)
        else:
            self.future.set_exception(result)


class StreamRequest(WaitingRequest):
    """A request of a stream. It costs a third of a future.

    Parameters
    ----------
    request, start_s, deadline_s, record
        As for :class:`WaitingRequest`.
    places
        Takes the place in the queue back.
    """

    __slots__ = ("_is_dropped", "_places", "_result", "_signal", "_unclaimed")

    def __init__(
        self,
        request: Request,
        start_s: float,
        deadline_s: float,
        record: ServerRecord,
        places: SimpleQueue[None],
    ) -> None:
        super().__init__(request, start_s, deadline_s, record)
        self._places = places
        self._result: ExitAnswer | BaseException | None = None
        self._signal = unset_signal()
        self._is_dropped = False
        self._unclaimed = [True]

    @property
    def is_wanted(self) -> bool:
        """False once nobody waits for the answer."""
        return not self._is_dropped

    @property
    def has_ended(self) -> bool:
        """True if :meth:`result` does not wait."""
        return self._result is not None

    def drop(self) -> None:
        """Give up the request: it leaves the queue, or its batch at the next exit."""
        self._is_dropped = True

    def wait(self, limit_s: float) -> None:
        """Wait for the end: at most until the deadline, if nobody has begun with the request.

        Its place in the queue is taken until a thread of the server finds it there. Raises
        :class:`RunTimeout` after a time limit.
        """
        if self._result is not None:
            return
        rest_s = max(self.deadline_s - time.perf_counter(), 0.0)
        if rest_s < limit_s:
            if self._signal.acquire(timeout=rest_s):
                return
            if self._claim():
                self._miss()
                return
        if not self._signal.acquire(timeout=limit_s):
            raise RunTimeout(f"a request of a stream had no answer after {limit_s:g} s")

    def _miss(self) -> None:
        self._has_ended = True
        self._record.failed(is_missed=True)
        self._result = DeadlineMissed("a request had not begun at its deadline: others took longer")

    def begin(self) -> bool:
        """Leave the queue, in which a request that missed its deadline still has a place."""
        if self._claim():
            return super().begin()
        self._places.put(None)
        return False

    def _claim(self) -> bool:
        """Begin with the request, or end it at its deadline; True for the first to ask."""
        try:
            return self._unclaimed.pop()
        except IndexError:
            return False

    def result(self, limit_s: float) -> ExitAnswer | DeadlineMissed:
        """Wait for the end; errors other than a missed deadline are raised."""
        self.wait(limit_s)
        assert self._result is not None
        if isinstance(self._result, (ExitAnswer, DeadlineMissed)):
            return self._result
        raise self._result

    def _end(self, result: ExitAnswer | BaseException) -> None:
        self._result = result
        self._signal.release()
        self._places.put(None)


def answer_singly(
    requests: Sequence[WaitingRequest], call: Callable[[WaitingRequest], ExitAnswer]
) -> None:
    """Answer requests one after the other; errors of a call end its request alone.

    Interrupts are raised as well, for a call on the thread that they belong to.
    """
    for request in requests:
        if not request.is_wanted:
            request.leave()
            continue
        try:
            answer = call(request)
        except BaseException as error:
            request.fail(error)
            if not isinstance(error, Exception):
                raise
        else:
            request.answer(answer)
