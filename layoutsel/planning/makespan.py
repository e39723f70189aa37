"""Makespans of plans whose devices and host work concurrently.

All calls are made in one order, and :class:`~layoutsel.planning.resources.ResourceModel` defines
which resources each step occupies and for how long. An order of calls therefore is a schedule: each
step starts as soon as its caller has reached it, its resources are free and its inputs are
available. The boundaries of a sub-graph's inputs come directly before its call.

:func:`schedule` finds the best order of few sub-graphs by an exact search, see
:mod:`~layoutsel.planning.makespan_exact`, and a good order of many by list scheduling. Among calls
with available inputs, those that leave the caller free come first; then the one that can start
first; then the one with the longest path to the end (Graham, "Bounds on multiprocessing timing
anomalies", 1969; HEFT's ranks, Topcuoglu et al., 2002). The result is the shortest of several such
schedules, which differ in the calls that come before all others; see :data:`_FIRST`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from layoutsel.cost.place import HOST
from layoutsel.planning.calls import BoundaryStep, Call, Calls, memories_of
from layoutsel.planning.makespan_exact import shortest
from layoutsel.planning.partial_schedules import PartialSchedules
from layoutsel.planning.problem import PlanningProblem
from layoutsel.planning.resources import Resources
from tvm_passes.decision import Decision, SubgraphId

MOST_EXACT = 16
"""Maximum number of sub-graphs for which the best order of calls is searched."""
_WIDTH, _MOST = 20, 500
"""Maximum numbers of partial schedules of an order search: of each length, and in total.

Plans of small networks need fewer, except those of many branches.
"""


@dataclass(frozen=True, kw_only=True)
class Span:
    """Time of one step in a schedule."""

    name: str
    """Id of the sub-graph; for a boundary, its tensor and kind."""
    places: tuple[str, ...]
    """Occupied resources; with one host, the memories whose processors are busy."""
    start_us: float
    """Start of the step, microseconds."""
    end_us: float
    """Time at which the result is available, microseconds."""


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """Predicted times of all steps of a plan."""

    order: tuple[SubgraphId, ...]
    """Order in which the host calls the sub-graphs."""
    spans: tuple[Span, ...]
    """Times of all steps."""

    @property
    def makespan_us(self) -> float:
        """Time from the first call to the last result, microseconds."""
        return max((span.end_us for span in self.spans), default=0.0)


@dataclass(frozen=True, kw_only=True)
class Makespan:
    """Predicted time of a plan whose devices and host work concurrently, as in plan files."""

    us: float
    """Predicted time from the first call to the last result, microseconds."""
    bound_us: float
    """Lower bound on the schedules of all plans of the problem, microseconds."""
    order: tuple[SubgraphId, ...]
    """Order in which the host calls the sub-graphs."""

    @property
    def gap(self) -> float:
        """Relative gap between makespan and bound."""
        return max(self.us - self.bound_us, 0.0) / max(self.us, 1e-9)


class _Clock:
    """Times at which each resource is free, and at which each result is available."""

    def __init__(self) -> None:
        self._free_us: defaultdict[str | None, float] = defaultdict(float)
        self._available_us: dict[SubgraphId | None, float] = {None: 0.0}
        self.done: dict[BoundaryStep, float] = {}
        """Boundaries done so far, with the time at which each result is available, microseconds."""
        self.spans: list[Span] = []

    def free_us(self, resources: Resources) -> float:
        """Return the time at which caller and resources of a step are free, microseconds."""
        free_us = self._free_us
        return max([free_us[resources.called_by], *map(free_us.__getitem__, resources.busy_us)])

    def make(self, call: Call) -> None:
        """Do the remaining boundaries of a call, then the call itself."""
        for one in call.brings:
            if one not in self.done:
                ready = (
                    self._available_us[one.producer] if one.after is None else self.done[one.after]
                )
                self.done[one] = self._do(one.name, one.resources, ready)
        if call.id is not None:
            inputs = [self._available_us[need] for need in call.needs]
            inputs += [self.done[one] for one in call.brings]
            ready = max(inputs) if inputs else 0.0
            self._available_us[call.id] = self._do(call.id, call.resources, ready)

    def _do(self, name: str, resources: Resources, ready_us: float) -> float:
        """Do a step with inputs available at `ready_us`; returns the time of its result."""
        start_us = max(self.free_us(resources), ready_us)
        for resource, us in resources.busy_us.items():
            self._free_us[resource] = start_us + us
        end_us = start_us + resources.duration_us
        self.spans.append(
            Span(name=name, places=tuple(resources.busy_us), start_us=start_us, end_us=end_us)
        )
        return end_us


def in_order(all_calls: Sequence[Call], order: Sequence[SubgraphId]) -> Schedule:
    """Schedule the calls of a plan in the given order; the hand-over of results comes last."""
    by_id = {call.id: call for call in all_calls}
    clock = _Clock()
    for id_ in (*order, None):
        clock.make(by_id[id_])
    return Schedule(order=tuple(order), spans=tuple(clock.spans))


def schedule(problem: PlanningProblem, decisions: Mapping[SubgraphId, Decision]) -> Schedule:
    """Make the shortest schedule; a list schedule for more than :data:`MOST_EXACT` sub-graphs."""
    return Scheduler(problem).schedule(decisions)


class Scheduler:
    """Schedules of many plans of one problem."""

    def __init__(self, problem: PlanningProblem) -> None:
        self.calls = Calls(problem)
        """Calls of the plans."""
        self._problem = problem
        devices = [memory for memory in memories_of(problem) if memory != HOST]
        # One device needs no copies from others, and searches make thousands of schedules.
        self._first = tuple(_FIRST.values())[: 3 if len(devices) > 1 else 2]

    def schedule(self, decisions: Mapping[SubgraphId, Decision]) -> Schedule:
        """Make a schedule in the same way as :func:`schedule`."""
        listed = self.listed(decisions)
        if len(self._problem.nodes) > MOST_EXACT:
            return listed
        candidates = {n.id: (n.option(decisions[n.id]),) for n in self._problem.nodes}
        schedules = PartialSchedules(self._problem, self.calls, candidates)
        found = shortest(schedules, listed.makespan_us, width=_WIDTH, most=_MOST)
        if found.best is None:
            return listed
        _, order = schedules.plan(found.best)
        return in_order(self.calls.of(decisions), order)

    def listed(self, decisions: Mapping[SubgraphId, Decision]) -> Schedule:
        """Make the shortest of the list schedules in :data:`_FIRST`."""
        calls = self.calls.of(decisions)
        found = [_listed(calls, first) for first in self._first]
        return min(found, key=lambda one: one.makespan_us)


_First = Callable[[Call, _Clock], bool]
_FIRST: Mapping[str, _First] = {
    "devices get all inputs that they can": lambda call, _: not call.resources.blocks_caller,
    "calls come as they can start": lambda *_: True,
    "copies to devices begin, before their sources get more work": lambda call, clock: (
        call.is_copied_to_device(clock.done)
    ),
}
"""Functions that select the calls which come before all others, by their meaning."""


def _listed(all_calls: Sequence[Call], first: _First) -> Schedule:
    """Schedule `all_calls`, of which the last is the hand-over of the model's results."""
    *calls, results = all_calls
    ranks = _ranks(all_calls)
    left = {call.id: len(call.needs) for call in calls}
    readers: dict[SubgraphId, list[Call]] = {}
    for call in calls:
        for need in call.needs:
            readers.setdefault(need, []).append(call)
    clock = _Clock()
    order: list[SubgraphId] = []

    def urgency(call: Call) -> tuple[bool, bool, float, float]:
        return (
            not first(call, clock),
            call.blocks_caller(clock.done),
            clock.free_us(call.first(clock.done)),
            -ranks[call.id],
        )

    ready = [call for call in calls if not call.needs]
    while ready:
        call = min(ready, key=urgency) if len(ready) > 1 else ready[0]
        clock.make(call)
        assert call.id is not None, "the results come last"
        order.append(call.id)
        ready.remove(call)
        for reader in readers.get(call.id, ()):
            left[reader.id] -= 1
            if left[reader.id] == 0:
                ready.append(reader)
    clock.make(results)
    return Schedule(order=tuple(order), spans=tuple(clock.spans))


def _ranks(calls: Sequence[Call]) -> dict[SubgraphId | None, float]:
    """Compute the longest path from each call to the end with its boundaries, microseconds."""
    ranks: dict[SubgraphId | None, float] = {}
    after: dict[SubgraphId, float] = {}
    for call in reversed(calls):
        ranks[call.id] = call.path_us + (after.get(call.id, 0.0) if call.id is not None else 0.0)
        for need in call.needs:
            after[need] = max(after.get(need, 0.0), ranks[call.id])
    return ranks
