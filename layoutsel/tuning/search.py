"""Schedule search: one process proposes, a device times, and every trial is recorded at once.

The search itself runs in a child process within limits of time and memory. If a step fails, a new
process rebuilds the search from the trials so far.
"""

from __future__ import annotations

import json
import logging
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import tvm
from tvm.target import Target

from layoutsel.core.memory_limits import most_bytes
from layoutsel.device.outcome import Failure
from layoutsel.device.worker import Reply, Worker
from layoutsel.tuning.database import Journal
from layoutsel.tuning.devices import Device, Request, Times
from layoutsel.tuning.progress import OnTrial, TuningProgress
from layoutsel.tuning.propose import Proposal, SearchStep, TimedSchedule
from layoutsel.tuning.tasks import Task

_LOG = logging.getLogger(__name__)

FAILED_S = 1e10
"""Time that TVM records for a schedule that did not build or run, seconds."""
STEP_LIMIT_S = 300.0
"""Time limit of one step of the search, seconds; ten seconds are usual."""
STEP_BYTES = 8 << 30
"""Maximum memory of the search, bytes; one is usual for large networks."""
_FAILURES = 2
"""Number of failed steps after which a task is abandoned; one is enough if it would fail again."""
_MOST_PER_BATCH = 64
"""Maximum number of schedules per batch."""
_BATCHES = 4
"""Number of batches per task; the cost model learns after each."""


def searcher() -> Worker:
    """Make the process that proposes schedules."""
    return Worker(
        "layoutsel.tuning.propose:propose",
        time_limit_s=STEP_LIMIT_S,
        memory_bytes=min(STEP_BYTES, most_bytes()),
    )


def tune(
    tasks: Sequence[Task],
    *,
    trials: int,
    target: Target,
    threads: int,
    device: Device,
    journal: Journal,
    on_trial: OnTrial | None = None,
    worker: Worker | None = None,
) -> tuple[TuningProgress, ...]:
    """Complete every task to `trials` recorded trials, one batch of each in turn.

    A task that cannot be tuned is abandoned with its error; the others continue. An interrupt
    (Ctrl-C) is passed on and loses at most the active trial.

    Parameters
    ----------
    tasks
        Functions to tune.
    trials
        Number of trials for each task, including recorded ones.
    target
        Target of the schedules.
    threads
        Number of threads of the schedules. The search itself uses all cores, as it never overlaps
        with timing.
    device
        Device that times the schedules.
    journal
        Folder of the records.
    on_trial
        Called after each trial.
    worker
        Process that proposes schedules, closed at the end; by default :func:`searcher`.
    """
    searches = [
        _Search(TuningProgress(task=task, wanted=trials), journal, target, threads, number)
        for number, task in enumerate(tasks)
    ]
    report = on_trial or (lambda _progress: None)
    with worker or searcher() as proposing:
        under_way = [search for search in searches if search.progress.left > 0]
        while under_way:
            for search in under_way:
                search.run_batch(proposing, device, report)
            under_way = [search for search in under_way if search.progress.left > 0]
    return tuple(search.progress for search in searches)


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Defer Ctrl-C for a moment, so that a trial is recorded and counted, or neither."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    pressed: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _frame: pressed.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if pressed:
        raise KeyboardInterrupt


@dataclass(eq=False)
class _Search:
    """Search for schedules of one task."""

    progress: TuningProgress
    """State of the task."""
    journal: Journal
    """Folder of the records."""
    target: Target
    """Target of the schedules."""
    threads: int
    """Number of threads of the schedules."""
    number: int
    """Number of the task."""
    trials: list[TimedSchedule] = field(default_factory=list)
    """Trials so far, including earlier ones."""
    known: tuple[int, int] = (0, 0)
    """Number of the process that proposed last, and the number of trials that it knows."""
    failures: int = 0
    """Number of failed steps."""

    def __post_init__(self) -> None:
        """Count earlier records."""
        for line in self.journal.known(self.progress.task.module, self.target_json()):
            self.trials.append(TimedSchedule(record=line.json, times=line.seconds))
            self.progress.count(line.seconds)
        self.progress.found = len(self.trials)

    def target_json(self) -> Any:
        """Target as stored in records."""
        return json.loads(str(self.target))

    def run_batch(self, worker: Worker, device: Device, report: OnTrial) -> None:
        """Propose, time and record a batch of schedules."""
        proposals = self._proposals(worker)
        if not proposals:
            report(self.progress)
            return
        requests = [self._request(proposal) for proposal in proposals]
        for index, outcome in device.measure(requests):
            self._record(proposals[index], outcome, report)

    def _proposals(self, worker: Worker) -> Sequence[Proposal]:
        """Ask for the next schedules; none if the step fails, or the search finds no new one."""
        answer = worker.call(self._step(worker))
        if isinstance(answer, Reply):
            self.known = worker.starts, len(self.trials)
            proposals: Sequence[Proposal] = answer.value
            self.progress.finished = not proposals
            return proposals
        self._fail(worker, answer)
        return ()

    def _step(self, worker: Worker) -> SearchStep:
        process, count = self.known
        is_same = worker.is_running and process == worker.starts
        return SearchStep(
            number=self.number,
            name=self.progress.task.name,
            module=tvm.ir.save_json(self.progress.task.module),
            target=self.target_json(),
            batch=max(1, min(_MOST_PER_BATCH, -(-self.progress.wanted // _BATCHES))),
            left=self.progress.left,
            trials=tuple(self.trials[count if is_same else 0 :]),
            folder=self.journal.folder,
        )

    def _fail(self, worker: Worker, failure: Failure) -> None:
        """Try a failed step once more in a new process, unless it would fail again."""
        self.failures += 1
        name = self.progress.task.name
        if not failure.is_reproducible:
            worker.close()  # the process may have little memory left
            if self.failures < _FAILURES:
                _LOG.info("task %s: a step of the search failed: %s", name, failure.reason)
                return
        self.progress.error = f"the search failed: {failure.reason}"
        self.progress.finished = True
        _LOG.info("task %s is abandoned: %s", name, failure.reason)

    def _request(self, proposal: Proposal) -> Request:
        _trace, _seconds, target, arguments = proposal.record
        return {
            "module": proposal.module,
            "target": target,
            "arguments": arguments,
            "threads": self.threads,
        }

    def _record(self, proposal: Proposal, outcome: Times | Failure, report: OnTrial) -> None:
        """Record the outcome of one trial."""
        times = () if isinstance(outcome, Failure) else outcome
        trace, _seconds, target, arguments = proposal.record
        record = [trace, list(times or (FAILED_S,)), target, arguments]
        with _uninterrupted():
            if not isinstance(outcome, Failure) or outcome.is_reproducible:
                self.journal.append(self.progress.task.module, record)
            self.trials.append(TimedSchedule(record=record, times=times))
            self.progress.trials += 1
            self.progress.count(times)
            report(self.progress)
        if isinstance(outcome, Failure):
            _LOG.info("task %s: a schedule failed: %s", self.progress.task.name, outcome.reason)
