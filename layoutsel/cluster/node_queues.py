"""Queues of segments in front of the nodes, with deadlines for those that run."""

from __future__ import annotations

import time
from collections import defaultdict, deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial

from layoutsel.cluster.attempt import Attempt, SegmentTask
from layoutsel.cluster.distribution import Segment
from layoutsel.cluster.engine import ClusterEngine, RunTimes, SegmentRun, Work
from layoutsel.cluster.event_loop import EventLoop


@dataclass(frozen=True, kw_only=True)
class ClusterLimits:
    """ClusterLimits of a running distribution."""

    in_flight: int = 16
    """Largest number of requests in progress; further callers wait."""
    request_s: float = 60.0
    """Time limit of a request, seconds."""
    factor: float = 3.0
    """Multiple of the expected time after which a run is overdue."""
    least_s: float = 0.1
    """Shortest deadline, seconds: schedulers of busy machines delay threads by tens of ms."""
    stranded_s: float = 5.0
    """Longest wait of a request for the return of any node, seconds."""
    rtt_s: float = 0.0
    """Longest round trip between two nodes, seconds."""
    window: int = 2
    """Runs that a node holds at once: one computes while the inputs of the next arrive."""
    attempts: int = 8
    """Largest number of attempts at a request."""

    def patience_s(self, expected_us: float, attempts: int) -> float:
        """Time after which work of an expected time is overdue, seconds.

        It doubles with every attempt at a request: if all nodes are slow, replays must not add to
        their load without end.
        """
        once_s = max(self.least_s, 1e-6 * self.factor * expected_us) + self.rtt_s
        return once_s * 2.0 ** (attempts - 1)


@dataclass(frozen=True, kw_only=True)
class Reactions:
    """Functions that learn of the ends of runs."""

    ended: Callable[[SegmentTask, Future[RunTimes]], None]
    """A run of a current attempt ended, with times or an error."""
    late: Callable[[], None]
    """A run ended whose attempt is over."""
    missed: Callable[[SegmentTask], None]
    """A run of a current attempt is overdue."""


class NodeQueues:
    """Starts segments on their nodes, a few at a time.

    Waiting segments stay here, so a lost node takes few with it, and a deadline only covers the
    runs in front of a segment.

    Parameters
    ----------
    engine
        ClusterEngine that runs segments.
    loop
        Loop of the controller, on whose thread all methods are called.
    limits
        ClusterLimits.
    expected_us
        Observed time of a segment, microseconds; None if unknown.
    reactions
        Functions that learn of the ends.
    """

    def __init__(
        self,
        engine: ClusterEngine,
        loop: EventLoop,
        limits: ClusterLimits,
        expected_us: Callable[[Segment], float | None],
        reactions: Reactions,
    ) -> None:
        self._engine, self._loop, self._limits = engine, loop, limits
        self._expected_us, self._reactions = expected_us, reactions
        self._waiting: defaultdict[str, deque[SegmentTask]] = defaultdict(deque)
        self._running: defaultdict[str, set[SegmentTask]] = defaultdict(set)

    def add(self, task: SegmentTask) -> None:
        """Queue a segment whose inputs are at hand."""
        self._waiting[task.segment.node].append(task)
        self._dispatch(task.segment.node)

    def drop(self, attempt: Attempt) -> None:
        """Give the places of an attempt's runs to others."""
        for task in attempt.tasks:
            self._running[task.segment.node].discard(task)
            self._loop.put(partial(self._dispatch, task.segment.node))

    def clear(self, node: str) -> None:
        """Forget the segments of a node."""
        self._running[node].clear()
        self._waiting[node].clear()

    def extend(self, task: SegmentTask) -> None:
        """Double the time that a run may take."""
        task.patience_s *= 2
        self._watch(task)

    def _dispatch(self, node: str) -> None:
        """Start queued segments of a node while it has places."""
        waiting, running = self._waiting[node], self._running[node]
        while waiting and len(running) < self._limits.window:
            task = waiting.popleft()
            if task.attempt.is_current:
                self._start(task)

    def _start(self, task: SegmentTask) -> None:
        attempt, segment = task.attempt, task.segment
        running = self._running[segment.node]
        observed_us = self._expected_us(segment)
        own_us = segment.us if observed_us is None else observed_us
        task.expected_us = own_us + segment.spread_us
        task.expected_us += attempt.transfer_us(segment.inputs, segment.node)
        running.add(task)
        expected_us = sum(one.expected_us for one in running)
        task.patience_s = self._limits.patience_s(expected_us, attempt.request.attempts)
        task.began_s = time.monotonic()
        work = Work(
            segment=segment.id, node=segment.node, atoms=segment.atoms, outputs=segment.outputs
        )
        refs = {name: attempt.tensors[name] for name in segment.inputs}
        try:
            task.run = self._engine.start(work, refs)
        except Exception as error:  # it concerns this request alone
            task.run = SegmentRun(outputs={})
            task.run.times.set_exception(error)
        self._watch(task)
        task.run.times.add_done_callback(
            lambda ended: self._loop.put(partial(self._ended, task, ended))
        )

    def _watch(self, task: SegmentTask) -> None:
        self._loop.at(task.began_s + task.patience_s, partial(self._check, task))

    def _check(self, task: SegmentTask) -> None:
        if task.attempt.is_current and task in task.attempt.tasks:
            self._reactions.missed(task)

    def _ended(self, task: SegmentTask, ended: Future[RunTimes]) -> None:
        self._running[task.segment.node].discard(task)
        if task.attempt.is_current:
            task.attempt.tasks.discard(task)
            self._reactions.ended(task, ended)
        else:
            self._reactions.late()
        task.run = None  # its callback and the task hold each other
        self._dispatch(task.segment.node)
