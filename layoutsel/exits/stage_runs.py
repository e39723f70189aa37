"""Runs of stages on serial workers by discrete events, until a stop."""

from __future__ import annotations

import math
from bisect import insort
from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import NamedTuple

_ROUNDING = 1e-9
"""Share of a stage's work by which the work done may miss a sum of its pieces."""


class TimedStage(NamedTuple):
    """A stage on its worker."""

    name: str
    """``trunk0``, ``branch0``, …"""
    worker: str
    """Name of its worker."""
    pieces_us: tuple[float, ...]
    """Times between the points at which it can be stopped, microseconds."""
    after: tuple[tuple[int, float], ...]
    """Stages before it, by number, each with the time to hand its result over, microseconds."""


class StageRun(NamedTuple):
    """One run of a stage."""

    name: str
    """``trunk0``, ``branch0``, …"""
    worker: str
    """Name of its worker."""
    start_us: float
    """Start, microseconds after the request."""
    end_us: float
    """End, microseconds after the request."""
    complete: bool
    """False if it was stopped before its last sub-graph."""


class StageQueues:
    """Workers, each of which runs its stages in the order in which they become ready.

    Parameters
    ----------
    stages
        Stages, each later than those that it is after.
    slowdown
        Factor on times while another worker computes, by ``worker|other``.
    start_us
        Time at which stages that are after no other one are ready, microseconds.
    """

    def __init__(
        self, stages: Sequence[TimedStage], slowdown: Mapping[str, float], start_us: float = 0.0
    ) -> None:
        self.runs: list[StageRun] = []
        """Runs in order of their end."""
        self._stages = stages
        self._slowdown = slowdown
        self._now_us = 0.0
        self._missing = [len(stage.after) for stage in stages]
        self._ready_us = [start_us] * len(stages)
        self._readers: list[list[tuple[int, float]]] = [[] for _ in stages]
        for number, stage in enumerate(stages):
            for before, delay_us in stage.after:
                self._readers[before].append((number, delay_us))
        self._waiting = [(start_us, n) for n, count in enumerate(self._missing) if not count]
        self._current: dict[str, tuple[int, float]] = {}
        """Stage that each busy worker runs, and its start, microseconds."""
        self._left_us: dict[str, float] = {}
        """Work that is left on each busy worker, without slow-down, microseconds."""
        self._is_over = False
        """True after the stop, when no stage becomes ready."""
        self._stopped: set[int] = set()
        """Stages that end before their last piece."""

    def run(self, stop_us: float = math.inf) -> list[StageRun]:
        """Run all stages, or until all workers are idle after a stop; returns :attr:`runs`.

        At the stop, each worker goes on to the end of its current piece, and no stage begins.
        """
        while self._now_us < stop_us:
            self._begin()
            if not self._current and not self._waiting:
                return self.runs
            self._advance()
        self._stop()
        while self._current:
            self._advance()
        return self.runs

    def _begin(self) -> None:
        """Give each idle worker the stage that was ready first."""
        for item in [item for item in self._waiting if item[0] <= self._now_us]:
            number = item[1]
            worker = self._stages[number].worker
            if worker not in self._current:
                self._waiting.remove(item)
                self._current[worker] = number, self._now_us
                self._left_us[worker] = sum(self._stages[number].pieces_us)

    def _advance(self) -> None:
        """Go on to the next end of a stage, or to the time at which an idle worker has a stage."""
        factors = {worker: self._factor(worker) for worker in self._current}
        ends_us = {w: self._now_us + self._left_us[w] * factor for w, factor in factors.items()}
        next_us = min(ends_us.values(), default=math.inf)
        for ready_us, number in self._waiting:
            if ready_us >= next_us:
                break
            if self._stages[number].worker not in self._current:
                next_us = ready_us
                break
        for worker, factor in factors.items():
            self._left_us[worker] -= (next_us - self._now_us) / factor
        self._now_us = next_us
        for worker, end_us in ends_us.items():
            if end_us <= next_us:
                self._end(worker)

    def _end(self, worker: str) -> None:
        number, start_us = self._current.pop(worker)
        del self._left_us[worker]
        complete = number not in self._stopped
        stage = self._stages[number]
        self.runs.append(StageRun(stage.name, worker, start_us, self._now_us, complete))
        if self._is_over:
            return
        for reader, delay_us in self._readers[number]:
            self._missing[reader] -= 1
            self._ready_us[reader] = max(self._ready_us[reader], self._now_us + delay_us)
            if not self._missing[reader]:
                insort(self._waiting, (self._ready_us[reader], reader))

    def _stop(self) -> None:
        """Shorten the stages that run to the end of their current piece."""
        self._is_over = True
        self._waiting.clear()
        for worker, (number, _) in self._current.items():
            points_us = list(accumulate(self._stages[number].pieces_us))
            done_us = points_us[-1] - self._left_us[worker]
            near_us = done_us - _ROUNDING * points_us[-1]
            point_us = next(us for us in points_us if us >= near_us)
            self._left_us[worker] = max(0.0, point_us - done_us)
            if point_us < points_us[-1]:
                self._stopped.add(number)

    def _factor(self, worker: str) -> float:
        """Factor on the times of a worker while others compute."""
        factor = 1.0
        for other in self._current:
            if other != worker:
                factor *= self._slowdown.get(f"{worker}|{other}", 1.0)
        return factor
