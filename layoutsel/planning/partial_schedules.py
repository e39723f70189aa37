"""Partial schedules: some calls of a plan in order, with numbers in place of names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from layoutsel.planning.calls import Calls
from layoutsel.planning.numbered_calls import NOBODY, Candidates, NumberedCalls, NumberedStep
from layoutsel.planning.partial_bounds import Loads, Paths
from layoutsel.planning.problem import PlanningProblem
from tvm_passes.decision import Decision, SubgraphId

Key = tuple[object, ...]
"""Facts that two partial schedules must share if one may replace the other."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PartialSchedule:
    """Schedule of some calls, before all others."""

    made: int
    """Sub-graphs that were called, as bits."""
    order: tuple[int, ...]
    """These sub-graphs in the order of their calls."""
    chosen: tuple[int, ...]
    """Number of the candidate of each sub-graph; -1 if it was not called."""
    free_us: tuple[float, ...]
    """Time at which each resource is free, microseconds."""
    ends_us: tuple[float, ...]
    """Time at which the results of each sub-graph are available, microseconds."""
    steps_us: Mapping[int, float]
    """Time at which the result of each boundary is available, microseconds."""
    work_us: tuple[float, ...]
    """Least remaining work, by row of :class:`Loads`, microseconds."""
    last_us: float
    """Latest end of a step, microseconds."""


class PartialSchedules:
    """Partial schedules of all plans with the given candidates."""

    def __init__(self, problem: PlanningProblem, calls: Calls, candidates: Candidates) -> None:
        self._calls = NumberedCalls(problem, calls, candidates)
        self._makers = self._calls.makers
        self._needs = [sum(1 << maker for maker in {*makers}) for makers in self._makers]
        self._readers = [
            sum(1 << reader for reader, makers in enumerate(self._makers) if number in makers)
            for number in range(self.count)
        ]
        works = self._calls.works
        self._paths = Paths(problem, list(candidates.values()), self._calls.numbers, works)
        busy = [[dict(work.busy_us) for work in options] for options in works]
        self._loads = Loads.of(busy, self._calls.resources)

    @property
    def count(self) -> int:
        """Number of sub-graphs."""
        return len(self._calls.ids)

    def empty(self) -> PartialSchedule:
        """Make the schedule without calls."""
        return PartialSchedule(
            made=0,
            order=(),
            chosen=(NOBODY,) * self.count,
            free_us=(0.0,) * self._calls.resources,
            ends_us=(0.0,) * self.count,
            steps_us={},
            work_us=self._loads.total_us,
            last_us=0.0,
        )

    def continued(self, one: PartialSchedule) -> Iterator[PartialSchedule]:
        """Yield the schedules with one more call, of each sub-graph that can be called."""
        for number in range(self.count):
            needs = self._needs[number]
            if one.made >> number & 1 or one.made & needs != needs:
                continue
            for candidate in range(len(self._calls.works[number])):
                yield self._called(one, number, candidate)

    def makespan_us(self, one: PartialSchedule) -> float:
        """Compute the makespan of a schedule of all calls, microseconds.

        The hand-over of the model's results comes last.
        """
        chosen, free_us, steps_us = one.chosen, list(one.free_us), dict(one.steps_us)
        brings, _ = self._calls.call(self.count, NOBODY, chosen)
        ready_us = self._bring(brings, one.ends_us, free_us, steps_us)
        return max(one.last_us, ready_us, *(steps_us[step.number] for step in brings), 0.0)

    def plan(self, one: PartialSchedule) -> tuple[dict[SubgraphId, Decision], list[SubgraphId]]:
        """Return the decisions and the order of a schedule of all calls."""
        return self._calls.decisions(one.chosen), [self._calls.ids[n] for n in one.order]

    def key(self, one: PartialSchedule) -> Key:
        """Return the facts that determine the remaining calls, except for times."""
        live = tuple(
            chosen if self._readers[number] & ~one.made else NOBODY
            for number, chosen in enumerate(one.chosen)
        )
        return one.made, live, tuple(sorted(one.steps_us))

    def times_us(self, one: PartialSchedule) -> tuple[float, ...]:
        """Return the times on which the remaining calls depend, microseconds.

        A schedule can replace another one with an equal key if none of its times is later.
        """
        ends_us = (
            end_us
            for number, end_us in enumerate(one.ends_us)
            if one.made >> number & 1 and self._readers[number] & ~one.made
        )
        steps_us = (one.steps_us[number] for number in sorted(one.steps_us))
        # No step starts before its caller is free, so earlier times make no difference.
        begin_us = 0.0 if self._calls.caller == NOBODY else one.free_us[self._calls.caller]
        times_us = (*one.free_us, *ends_us, *steps_us)
        return (one.last_us, *(max(us, begin_us) for us in times_us))

    def bound_us(self, one: PartialSchedule, enough_us: float) -> float:
        """Compute a lower bound on the makespan of all continuations, microseconds.

        Parameters
        ----------
        one
            Schedule of some calls.
        enough_us
            Bound from which on a higher one is not needed, microseconds.
        """
        bound_us = max(one.last_us, self._loads.bound_us(one.free_us, one.work_us))
        ends_us, chosen, made = one.ends_us, one.chosen, one.made
        for number in range(self.count):
            if bound_us >= enough_us:
                break
            if made >> number & 1:
                handing_us = self._paths.handing_us[number]
                if handing_us is not None:
                    bound_us = max(bound_us, ends_us[number] + handing_us[chosen[number]])
                continue
            least_us = float("inf")
            for candidate, left_us in enumerate(self._paths.left_us[number]):
                start_us = self._free_us(one.free_us, self._calls.works[number][candidate])
                for read in self._paths.inputs[number]:
                    if read.producer == NOBODY:
                        start_us = max(start_us, read.bringing_us[0][candidate])
                    elif made >> read.producer & 1:
                        us = read.bringing_us[chosen[read.producer]][candidate]
                        start_us = max(start_us, ends_us[read.producer] + us)
                least_us = min(least_us, start_us + left_us)
            bound_us = max(bound_us, least_us)
        return bound_us

    def _called(self, one: PartialSchedule, number: int, candidate: int) -> PartialSchedule:
        """Call a sub-graph after all calls of a schedule."""
        chosen = (*one.chosen[:number], candidate, *one.chosen[number + 1 :])
        free_us, steps_us = list(one.free_us), dict(one.steps_us)
        brings, own = self._calls.call(number, candidate, chosen)
        ready_us = self._bring(brings, one.ends_us, free_us, steps_us)
        for maker in self._makers[number]:
            ready_us = max(ready_us, one.ends_us[maker])
        end_us = self._do(own, ready_us, free_us)
        made = one.made | 1 << number
        ends_us = [*one.ends_us[:number], end_us, *one.ends_us[number + 1 :]]
        last_us = max(one.last_us, end_us, *(steps_us[step.number] for step in brings), 0.0)
        steps_us = {step: us for step, us in steps_us.items() if self._is_live(step, made)}
        least_us = self._loads.least_us[number]
        return PartialSchedule(
            made=made,
            order=(*one.order, number),
            chosen=chosen,
            free_us=tuple(free_us),
            ends_us=tuple(ends_us),
            steps_us=steps_us,
            work_us=tuple(us - less for us, less in zip(one.work_us, least_us, strict=True)),
            last_us=last_us,
        )

    def _bring(
        self,
        brings: Sequence[NumberedStep],
        ends_us: Sequence[float],
        free_us: list[float],
        steps_us: dict[int, float],
    ) -> float:
        """Do the remaining boundaries of a call; returns the time at which all are available."""
        latest_us = 0.0
        for step in brings:
            if step.number not in steps_us:
                ready_us = 0.0
                if step.after != NOBODY:
                    ready_us = steps_us[step.after]
                elif step.producer != NOBODY:
                    ready_us = ends_us[step.producer]
                steps_us[step.number] = self._do(step, ready_us, free_us)
            latest_us = max(latest_us, steps_us[step.number])
        return latest_us

    def _do(self, step: NumberedStep, ready_us: float, free_us: list[float]) -> float:
        """Do a step with inputs available at `ready_us`; returns the time of its result."""
        start_us = max(self._free_us(free_us, step), ready_us)
        for number, us in step.busy_us:
            free_us[number] = start_us + us
        return start_us + step.duration_us

    def _free_us(self, free_us: Sequence[float], step: NumberedStep) -> float:
        """Return the time at which caller and resources of a step are free, microseconds."""
        start_us = 0.0 if step.caller == NOBODY else free_us[step.caller]
        for number, _ in step.busy_us:
            start_us = max(start_us, free_us[number])
        return start_us

    def _is_live(self, step: int, made: int) -> bool:
        """True if a consumer of the step's tensor may remain."""
        producer = self._calls.producer_of(step)
        return producer == NOBODY or bool(self._readers[producer] & ~made)
