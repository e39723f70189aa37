"""Simulation of one request to a multi-exit network by discrete events.

Each worker runs one stage at a time, in the order in which stages become ready. A stage is ready
when all stages before it have ended and their results were handed over. A request spends the time
outside of its stages before the first one. While several workers compute, each is slowed down by
the product of its factors for the others. A request that is answered stops every worker at the end
of its current sub-graph, and no stage begins.

Nothing depends on the sure exits before the answer. So one run in which no exit is sure yields the
times of all results, and the answers for all patterns of sure exits follow from these.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from layoutsel.exits.arrangement import Arrangement, ExitCosts
from layoutsel.exits.stage_runs import StageQueues, StageRun, TimedStage

TRUNK, BRANCH = "trunk", "branch"
"""Stages are named with these and their number, as in :meth:`ExitDivision.stages`."""


@dataclass(frozen=True, kw_only=True)
class SimulatedRequest:
    """Course of one request."""

    exit: int
    """Number of the exit that answers."""
    answer_us: float
    """Time of the answer, microseconds."""
    runs: tuple[StageRun, ...]
    """Stages that began, in order of their start."""

    @property
    def idle_us(self) -> Mapping[str, float]:
        """Time at which each worker that computed is idle again, microseconds."""
        found: dict[str, float] = {}
        for run in self.runs:
            found[run.worker] = max(run.end_us, found.get(run.worker, 0.0))
        return found

    @property
    def busy_us(self) -> float:
        """Computing time of all workers, microseconds."""
        return sum(run.end_us - run.start_us for run in self.runs)

    @property
    def waste_us(self) -> float:
        """Computing time of all workers after the answer, microseconds."""
        return sum(max(0.0, run.end_us - max(run.start_us, self.answer_us)) for run in self.runs)


class ExitSimulator:
    """Simulates requests to arrangements of one network.

    Parameters
    ----------
    costs
        Times of the network.
    """

    def __init__(self, costs: ExitCosts) -> None:
        self.costs = costs
        """Times of the network."""
        start_us = costs.start_us
        queued = {kind.name: max(kind.in_flight, 1) for kind in costs.workers}
        self._handovers = {tuple(key.split(">")): us for key, us in costs.handover_us.items()}
        self._trunk, self._branches = (
            {w: stage_pieces(stages, start_us, queued.get(w, 1)) for w, stages in times.items()}
            for times in (costs.trunk_us, costs.branch_us)
        )

    def known_us(self, arrangement: Arrangement) -> np.ndarray:
        """Time of each exit's result if no exit is sure, (E,), microseconds; NaN if it is off."""
        ends_us = {run.name: run.end_us for run in self._queues(arrangement).run()}
        last = len(arrangement.branches)
        known_us = [ends_us.get(f"{BRANCH}{number}", math.nan) for number in range(last)]
        return np.array([*known_us, ends_us[f"{TRUNK}{last}"]])

    def request(self, arrangement: Arrangement, exit_: int, answer_us: float) -> SimulatedRequest:
        """Simulate a request with its end.

        Parameters
        ----------
        arrangement
            Workers of trunk and branches.
        exit_
            Number of the exit that answers.
        answer_us
            Time of the answer, one of :meth:`known_us`, microseconds.
        """
        runs = self._queues(arrangement).run(answer_us)
        runs = sorted(runs, key=lambda run: (run.start_us, run.end_us))
        return SimulatedRequest(exit=exit_, answer_us=answer_us, runs=tuple(runs))

    def stages(self, arrangement: Arrangement) -> list[TimedStage]:
        """Stages of `arrangement`: a branch on the trunk's worker is between two segments."""
        trunk = arrangement.trunk
        stages: list[TimedStage] = []
        made: list[int] = []
        before: tuple[tuple[int, float], ...] = ()
        for index, pieces in enumerate(self._trunk[trunk]):
            tap = len(stages)
            worker = arrangement.branches[index] if index < len(arrangement.branches) else None
            copy_us = self.copy_us(trunk, worker, index)
            segment = (*pieces, copy_us) if copy_us else pieces
            stages.append(TimedStage(f"{TRUNK}{index}", trunk, segment, before))
            before = ((tap, 0.0),)
            made.append(len(stages))
            if worker is None:
                continue
            after = [(tap, self.handover_us(trunk, worker, index))]
            for other in self.costs.needs[index]:
                source = arrangement.branches[other]
                assert source is not None, "arrangement_faults refuses it"
                after.append((made[other], self.handover_us(source, worker, other)))
            name = f"{BRANCH}{index}"
            stages.append(TimedStage(name, worker, self._branches[worker][index], tuple(after)))
            if worker == trunk:
                before = ((made[index], 0.0),)
        return stages

    def call_us(self, arrangement: Arrangement) -> float:
        """Time outside of all stages, microseconds; counts as before the first one."""
        others = arrangement.workers - {arrangement.trunk}
        pairs = (f"{arrangement.trunk}>{other}" for other in others)
        calls_us = (self.costs.calls_us.get(pair, self.costs.call_us) for pair in pairs)
        return self.costs.request_us + max(calls_us, default=0.0)

    def handover_us(self, source: str, destination: str, tap: int) -> float:
        """Time to pass what is ready at tap `tap` from one worker to another, microseconds."""
        times = self._handovers.get((source, destination))
        return times[tap] if times else 0.0

    def copy_us(self, trunk: str, worker: str | None, tap: int) -> float:
        """Time for which the trunk copies tap `tap` for a branch, microseconds."""
        times = self.costs.copy_us.get(f"{trunk}>{worker}")
        return times[tap] if times else 0.0

    def _queues(self, arrangement: Arrangement) -> StageQueues:
        call_us = self.call_us(arrangement)
        return StageQueues(self.stages(arrangement), self.costs.slowdown, call_us)


def stage_pieces(
    stages: Sequence[Sequence[float]], start_us: float, queued: int = 1
) -> tuple[tuple[float, ...], ...]:
    """Times between the stop points of each stage; an empty stage takes no time to begin.

    Parameters
    ----------
    stages
        Times of the sub-graphs of each stage, microseconds.
    start_us
        Time to begin a stage, microseconds.
    queued
        Number of sub-graphs that are begun together, and cannot be stopped in a device's queue.
    """
    return tuple(
        (
            start_us,
            *(sum(stage[first : first + queued]) for first in range(0, len(stage), queued)),
        )
        if stage
        else ()
        for stage in stages
    )
