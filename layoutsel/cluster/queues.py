"""A clock and resources that serve jobs: the parts of a discrete-event simulation."""

from __future__ import annotations

import heapq
import itertools
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol


class Clock:
    """Events in order of time; those of one time in the order in which they were set."""

    def __init__(self) -> None:
        self.now_us = 0.0
        """Time of the present event, microseconds."""
        self._events: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._number = itertools.count()

    def after(self, us: float, call: Callable[..., None], *arguments: Any) -> None:
        """Call a function `us` microseconds from now."""
        event = (self.now_us + us, next(self._number), call, arguments)
        heapq.heappush(self._events, event)

    def run(self) -> None:
        """Process all events, also those that others set."""
        while self._events:
            self.now_us, _, call, arguments = heapq.heappop(self._events)
            call(*arguments)


class Occupation(Protocol):
    """Occupation of one resource for a time."""

    us: float
    """Time that it takes alone, microseconds."""

    @property
    def wanted(self) -> bool:
        """False if the job is to be left out when its turn comes."""
        ...

    def begun(self, now_us: float) -> None:
        """Note that the resource has begun."""
        ...

    def ended(self) -> None:
        """Note that the resource has finished."""
        ...


class Server(Protocol):
    """A resource."""

    busy_us: float
    """Time of finished jobs, microseconds."""

    def request(self, job: Occupation) -> None:
        """Serve `job`, now or later."""
        ...


class Processor:
    """A resource that serves one job at a time, in order of arrival."""

    __slots__ = ("_clock", "_job", "_queue", "busy_us", "up")

    def __init__(self, clock: Clock) -> None:
        self.busy_us = 0.0
        self.up = True
        """False while it is lost: it takes no job then."""
        self._clock = clock
        self._queue = deque[Occupation]()
        self._job: Occupation | None = None

    def request(self, job: Occupation) -> None:
        """Serve `job` after the present ones; a lost server forgets it."""
        if not self.up:
            return
        self._queue.append(job)
        if self._job is None:
            self._begin()

    def lose(self) -> None:
        """Forget all jobs and take none until :meth:`recover`."""
        self.up = False
        self._queue.clear()
        self._job = None

    def recover(self) -> None:
        """Take jobs again."""
        self.up = True

    def _begin(self) -> None:
        while self._queue:
            job = self._queue.popleft()
            if job.wanted:
                self._job = job
                self._clock.after(job.us, self._end, job)
                job.begun(self._clock.now_us)
                return

    def _end(self, job: Occupation) -> None:
        if job is not self._job:
            return  # lost with the server
        self.busy_us += job.us
        self._job = None
        self._begin()
        job.ended()


class Wire:
    """A resource that divides its rate equally among its jobs, as links do among messages.

    Its virtual time grows at the rate that each job has. A job therefore ends at the virtual time
    of its arrival plus the time that it takes alone.
    """

    __slots__ = ("_clock", "_jobs", "_number", "_planned", "_since_us", "_virtual_us", "busy_us")

    def __init__(self, clock: Clock) -> None:
        self.busy_us = 0.0
        self._clock = clock
        self._jobs: list[tuple[float, int, Occupation]] = []
        self._number = itertools.count()
        self._virtual_us = self._since_us = 0.0
        self._planned = 0

    def request(self, job: Occupation) -> None:
        """Serve `job` at once, together with the present ones."""
        self._advance()
        heapq.heappush(self._jobs, (self._virtual_us + job.us, next(self._number), job))
        job.begun(self._clock.now_us)
        self._plan()

    def _advance(self) -> None:
        """Bring the virtual time up to now; it restarts after a pause."""
        elapsed_us = self._clock.now_us - self._since_us
        self._since_us = self._clock.now_us
        self._virtual_us = self._virtual_us + elapsed_us / len(self._jobs) if self._jobs else 0.0

    def _plan(self) -> None:
        """Set the event of the next end; an earlier one is void."""
        self._planned += 1
        if self._jobs:
            left_us = (self._jobs[0][0] - self._virtual_us) * len(self._jobs)
            self._clock.after(max(left_us, 0.0), self._end, self._planned)

    def _end(self, planned: int) -> None:
        if planned != self._planned:
            return
        self._advance()
        end_us, _, job = heapq.heappop(self._jobs)
        self._virtual_us = end_us  # rounding errors do not add up
        self.busy_us += job.us
        self._plan()
        job.ended()
