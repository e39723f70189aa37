"""Requests of a simulation: arrival, admission, courses in turns, and recovery from lost nodes."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence

from layoutsel.cluster.courses import Course
from layoutsel.cluster.simulated_attempt import Facilities, SimulatedAttempt


class Simulator:
    """State of a simulation.

    Parameters
    ----------
    nodes
        Nodes that compute.
    courses
        Courses of the requests while no node is lost.
    without
        Courses without a node, by node.
    limit
        Most requests in progress; None without a limit.
    window_us
        Start and end of the time for which bars are kept, microseconds.
    """

    def __init__(
        self,
        *,
        nodes: Sequence[str],
        courses: Sequence[Course],
        without: Mapping[str, Sequence[Course]],
        limit: int | None,
        window_us: tuple[float, float],
    ) -> None:
        known = [*courses, *(course for some in without.values() for course in some)]
        steps = (step for course in known for step in course.steps)
        names = {name for step in steps for phase in step.phases for name in phase.busy_us}
        self.facilities = Facilities(names, nodes, window_us)
        """Resources and records of their use."""
        self.arrivals_us: list[float] = []
        """Time of arrival by request, microseconds."""
        self.ends_us: list[float | None] = []
        """Time of completion by request, microseconds; None before it, and if lost."""
        self.recoveries_us: list[float] = []
        """Time from the loss of a node until a replayed request was complete, microseconds."""
        self.replayed = 0
        """Number of attempts that were given up because a node was lost."""
        self._clock = self.facilities.clock
        self._courses = courses
        self._without = without
        self._limit = limit
        self._turns = _Turns(courses)
        self._undetected: dict[str, float] = {}
        self._lost: dict[str, None] = {}
        self._attempts: dict[int, SimulatedAttempt] = {}
        self._waiting = deque[int]()
        self._closed = 0

    def run_open(self, intervals_us: Iterable[float]) -> None:
        """Process requests that arrive after given intervals."""
        self._arrive_later(iter(intervals_us))
        self._clock.run()

    def run_closed(self, requests: int) -> None:
        """Process requests of which the next arrives when one has ended."""
        self._closed = requests
        for _ in range(min(requests, self._limit or requests)):
            self._arrive()
        self._clock.run()

    def lose(self, node: str, at_us: float, detection_us: float) -> None:
        """Lose a node at a time before the run; requests take other courses after the detection."""
        self._clock.after(at_us, self._lose, node, detection_us)

    def join(self, node: str, at_us: float) -> None:
        """Let a lost node join again at a time before the run."""
        self._clock.after(at_us, self._join, node)

    def _arrive_later(self, intervals_us: Iterator[float]) -> None:
        interval_us = next(intervals_us, None)
        if interval_us is not None:
            self._clock.after(interval_us, self._arrive, intervals_us)

    def _arrive(self, intervals_us: Iterator[float] | None = None) -> None:
        self._waiting.append(len(self.arrivals_us))
        self.arrivals_us.append(self._clock.now_us)
        self.ends_us.append(None)
        self._admit()
        if intervals_us is not None:
            self._arrive_later(intervals_us)

    def _admit(self) -> None:
        while self._waiting and (self._limit is None or len(self._attempts) < self._limit):
            self._start(self._waiting.popleft(), None)

    def _start(self, request: int, failed_us: float | None) -> None:
        course = self._turns.next()
        if course is None:  # the request is lost
            self._replace()
            return
        attempt = SimulatedAttempt(self.facilities, request, course, failed_us, self._complete)
        self._attempts[request] = attempt
        attempt.start()

    def _complete(self, attempt: SimulatedAttempt) -> None:
        self.ends_us[attempt.request] = self._clock.now_us
        if attempt.failed_us is not None:
            self.recoveries_us.append(self._clock.now_us - attempt.failed_us)
        del self._attempts[attempt.request]
        self._replace()
        self._admit()

    def _replace(self) -> None:
        """Let the next request arrive if requests arrive when others end."""
        if len(self.arrivals_us) < self._closed:
            self._clock.after(0.0, self._arrive)

    def _lose(self, node: str, detection_us: float) -> None:
        if node in self._lost or node in self._undetected:
            return
        self._undetected[node] = self._clock.now_us
        for server in self.facilities.processors[node]:
            server.lose()
        for attempt in self._attempts.values():
            if attempt.needs(node):
                attempt.stop(node)
        self._clock.after(detection_us, self._detect, node, self._clock.now_us)

    def _detect(self, node: str, lost_us: float) -> None:
        if self._undetected.get(node) != lost_us:
            return
        del self._undetected[node]
        self._lost[node] = None
        self._choose_courses()
        for attempt in list(self._attempts.values()):
            # Attempts that started after the loss wait for the node without knowing it.
            if attempt.stopped_by == node or (attempt.wanted and attempt.needs(node)):
                attempt.stop(node)
                self.replayed += 1
                del self._attempts[attempt.request]
                failed_us = lost_us if attempt.failed_us is None else attempt.failed_us
                self._start(attempt.request, failed_us)
        self._admit()

    def _join(self, node: str) -> None:
        if node in self._undetected:  # its old jobs are lost, although nobody has noticed
            self._detect(node, self._undetected[node])
        if node in self._lost:
            del self._lost[node]
            for server in self.facilities.processors[node]:
                server.recover()
            self._choose_courses()

    def _choose_courses(self) -> None:
        """Take courses without the lost nodes: those made for it, or what is left of the others."""
        choices = [*(self._without.get(node, ()) for node in self._lost), self._courses]
        alive = ([c for c in some if c.vertices.isdisjoint(self._lost)] for some in choices)
        self._turns = _Turns(next(filter(None, alive), ()))


class _Turns:
    """Deficit round robin: courses in turns, by weight."""

    def __init__(self, courses: Sequence[Course]) -> None:
        self._courses = courses
        self._credits = [0.0] * len(courses)
        self._total = sum(course.weight for course in courses)

    def next(self) -> Course | None:
        """Course of the next request; None if there is none."""
        if not self._courses:
            return None
        for number, course in enumerate(self._courses):
            self._credits[number] += course.weight
        chosen = max(range(len(self._courses)), key=self._credits.__getitem__)
        self._credits[chosen] -= self._total
        return self._courses[chosen]
