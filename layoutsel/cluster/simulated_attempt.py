"""Attempts at requests: steps of a course in queues of resources, and the bytes that they hold."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from layoutsel.cluster.courses import Copy, Course, CourseStep
from layoutsel.cluster.queues import Clock, Processor, Server, Wire


@dataclass(frozen=True)
class Bar:
    """Occupation of a resource: a bar of a Gantt chart."""

    resource: str
    """Node, link or medium."""
    start_us: float
    """Start, microseconds."""
    end_us: float
    """End, microseconds."""
    request: int
    """Number of the request, from 0."""
    step: str
    """Id of the segment, or name of the tensor."""


class Facilities:
    """Resources of a simulation, and records of their use.

    Parameters
    ----------
    names
        Names of the resources.
    nodes
        Nodes that compute.
    window_us
        Start and end of the time for which bars are kept, microseconds.
    """

    def __init__(
        self, names: Iterable[str], nodes: Iterable[str], window_us: tuple[float, float]
    ) -> None:
        self.clock = Clock()
        """Clock of all events."""
        self.processors: dict[str, list[Processor]] = {node: [] for node in nodes}
        """Processor and workers of each node."""
        self.servers: dict[str, Server] = {name: self._server(name) for name in sorted(names)}
        """Resources by name."""
        self.peak_bytes: dict[str, float] = {}
        """Most bytes that a node held at one time, by node."""
        self.link_joules = 0.0
        """Energy of the links, joules."""
        self.bars: list[Bar] = []
        """Occupations within the window, in order of their end."""
        self._window_us = window_us
        self._bytes = Counter[str]()

    def hold(self, node: str, size: int) -> None:
        """Count bytes that a node begins to hold; negative ones are released."""
        self._bytes[node] += size
        self.peak_bytes[node] = max(self.peak_bytes.get(node, 0), self._bytes[node])

    def record(self, resource: str, start_us: float, request: int, step: str) -> None:
        """Keep a bar that ends now if it touches the window."""
        first_us, last_us = self._window_us
        if start_us < last_us and self.clock.now_us > first_us:
            self.bars.append(Bar(resource, start_us, self.clock.now_us, request, step))

    def _server(self, name: str) -> Server:
        processors = self.processors.get(name.partition("/")[0])
        if processors is None:
            return Wire(self.clock)
        processors.append(Processor(self.clock))
        return processors[-1]


class SimulatedAttempt:
    """One attempt at a request on one course.

    Parameters
    ----------
    facilities
        Resources.
    request
        Number of the request.
    course
        Steps.
    failed_us
        Time at which a node was lost that an earlier attempt needed; None for the first attempt.
    ended
        Called with the attempt when all results are at the origin.
    """

    __slots__ = (
        "_ended",
        "_held",
        "_open",
        "_results",
        "_waiting",
        "course",
        "facilities",
        "failed_us",
        "request",
        "stopped_by",
        "wanted",
    )

    def __init__(
        self,
        facilities: Facilities,
        request: int,
        course: Course,
        failed_us: float | None,
        ended: Callable[[SimulatedAttempt], None],
    ) -> None:
        self.request = request
        self.course = course
        self.failed_us = failed_us
        self.wanted = True
        """False once the attempt has ended or is given up."""
        self.stopped_by: str | None = None
        """Lost node for which it was given up; None if it was not."""
        self.facilities = facilities
        self._ended = ended
        self._waiting = [len(step.reads) for step in course.steps]
        self._open = set(range(len(course.steps)))
        self._results = len(course.results)
        self._held: dict[Copy, int] = {}

    def start(self) -> None:
        """Start the steps that read nothing but inputs of the model."""
        course = self.course
        for copy in course.given:
            # The origin keeps inputs until the request ends, to replay it if a node is lost.
            self._hold(copy, len(course.readers[copy]) + 1)
        for number in course.starters:
            self._begin(number)
        for copy in course.given:
            self._arrive(copy)

    def needs(self, node: str) -> bool:
        """True if a step that has not ended needs `node`."""
        return any(node in self.course.steps[number].vertices for number in self._open)

    def stop(self, node: str) -> None:
        """Give the attempt up because `node` is lost."""
        self.wanted = False
        self.stopped_by = node
        self._release_all()

    def end(self, number: int) -> None:
        """Note the end of a step: its results are available."""
        self._open.remove(number)
        step = self.course.steps[number]
        for copy in step.writes:
            self._hold(copy, len(self.course.readers.get(copy, ())))
        for copy in step.reads:
            self._release(copy)
        for copy in step.writes:
            self._arrive(copy)

    def _begin(self, number: int) -> None:
        step = self.course.steps[number]
        self.facilities.link_joules += step.joules
        _Execution(self, number, step).next_phase()

    def _arrive(self, copy: Copy) -> None:
        if copy in self.course.results:
            self._results -= 1
            if not self._results:
                self.wanted = False
                self._release_all()
                self._ended(self)
        for number in self.course.readers.get(copy, ()) if self.wanted else ():
            self._waiting[number] -= 1
            if not self._waiting[number]:
                self._begin(number)

    def _hold(self, copy: Copy, readers: int) -> None:
        if readers:
            self._held[copy] = readers
            self.facilities.hold(copy[1], self.course.sizes.get(copy[0], 0))

    def _release(self, copy: Copy) -> None:
        self._held[copy] -= 1
        if not self._held[copy]:
            del self._held[copy]
            self.facilities.hold(copy[1], -self.course.sizes.get(copy[0], 0))

    def _release_all(self) -> None:
        for tensor, node in self._held:
            self.facilities.hold(node, -self.course.sizes.get(tensor, 0))
        self._held.clear()


class _Execution:
    """A step of an attempt, from phase to phase."""

    __slots__ = ("_attempt", "_delay_us", "_left", "_number", "_phases", "_step")

    def __init__(self, attempt: SimulatedAttempt, number: int, step: CourseStep) -> None:
        self._attempt, self._number, self._step = attempt, number, step
        self._phases = iter(step.phases)

    @property
    def wanted(self) -> bool:
        return self._attempt.wanted

    def next_phase(self) -> None:
        """Begin the next phase, or end the step after the last one."""
        if not self._attempt.wanted:
            return
        phase = next(self._phases, None)
        if phase is None:
            self._attempt.end(self._number)
            return
        self._delay_us = phase.delay_us
        self._left = len(phase.busy_us)
        if not phase.busy_us:
            self._attempt.facilities.clock.after(phase.delay_us, self.next_phase)
        for resource, us in phase.busy_us.items():
            self._attempt.facilities.servers[resource].request(_Visit(self, resource, us))

    def ended(self, resource: str, start_us: float) -> None:
        """Record an occupation; after the last one, the results are on their way."""
        facilities = self._attempt.facilities
        facilities.record(resource, start_us, self._attempt.request, self._step.name)
        self._left -= 1
        if not self._left:
            facilities.clock.after(self._delay_us, self.next_phase)


class _Visit:
    """Occupation of one resource by a step."""

    __slots__ = ("_execution", "_resource", "_start_us", "us")

    def __init__(self, execution: _Execution, resource: str, us: float) -> None:
        self.us = us
        self._execution, self._resource = execution, resource
        self._start_us = 0.0

    @property
    def wanted(self) -> bool:
        return self._execution.wanted

    def begun(self, now_us: float) -> None:
        self._start_us = now_us

    def ended(self) -> None:
        self._execution.ended(self._resource, self._start_us)
