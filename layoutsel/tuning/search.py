"""Schedule search: MetaSchedule proposes, a device times, and every trial is recorded at once."""

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
import tvm_ffi
from tvm.s_tir import meta_schedule
from tvm.s_tir.meta_schedule.cost_model import CostModel, RandomModel, XGBModel
from tvm.s_tir.meta_schedule.database import MemoryDatabase, TuningRecord
from tvm.s_tir.meta_schedule.runner import RunnerResult
from tvm.s_tir.meta_schedule.search_strategy import EvolutionarySearch
from tvm.target import Target

from layoutsel.device.outcome import Failure
from layoutsel.device.threads import available_threads
from layoutsel.tuning.database import Journal
from layoutsel.tuning.devices import Device, Request, Times
from layoutsel.tuning.intrinsics import import_intrinsics
from layoutsel.tuning.lines import RecordLine
from layoutsel.tuning.progress import OnTrial, TuningProgress
from layoutsel.tuning.tasks import Task
from tvm_passes.errors import LayoutselError

_LOG = logging.getLogger(__name__)

FAILED_S = 1e10
"""Time that TVM records for a schedule that did not build or run, seconds."""
_MOST_PER_BATCH = 64
"""Maximum number of schedules per batch."""
_BATCHES = 4
"""Number of batches per task; the cost model learns after each."""
_POPULATION_PER_TRIAL, _POPULATION = 16, (32, 512)
"""Size of the evolution's population per timed schedule, and its lower and upper limit."""
_WARM_UP = 32
"""Number of trials after which the cost model is used."""
_EMPTY = 3
"""Number of batches without a new schedule after which a task ends."""


def tune(
    tasks: Sequence[Task],
    *,
    trials: int,
    target: Target,
    threads: int,
    device: Device,
    journal: Journal,
    on_trial: OnTrial | None = None,
    seed: int = 0,
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
    seed
        Seed of the first task; further tasks count up.
    """
    model = _cost_model()
    searches = [
        _Search(
            TuningProgress(task=task, wanted=trials), journal, target, threads, model, seed + index
        )
        for index, task in enumerate(tasks)
    ]
    under_way = [search for search in searches if search.recall()]
    if under_way:
        import_intrinsics()
    report = on_trial or (lambda _progress: None)
    while under_way:
        for search in under_way:
            try:
                search.run_batch(device, report)
            except LayoutselError:
                raise  # an error of the device or the disk concerns all tasks
            except Exception as error:  # TVM raises anything: abandon this task alone
                search.give_up(error)
                report(search.progress)
        under_way = [search for search in under_way if search.progress.left]
    return tuple(search.progress for search in searches)


def _cost_model() -> CostModel:
    try:
        import xgboost  # noqa: F401
    except ImportError:
        _LOG.warning("xgboost is not installed: schedules are picked at random")
        return RandomModel()
    return XGBModel(
        num_warmup_samples=_WARM_UP, num_tuning_cores=available_threads(), tree_method="hist"
    )


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Defer Ctrl-C for some seconds, as its exception must not cross TVM's native code."""
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
    model: CostModel
    """Cost model, shared by all tasks."""
    seed: int
    """Seed of the evolution."""
    database: MemoryDatabase = field(default_factory=MemoryDatabase)
    """Timed records, for the evolution."""
    context: meta_schedule.TuneContext | None = None
    """TVM's state of the search; None before the first batch and after the last."""
    lines: list[RecordLine] = field(default_factory=list)
    """Records from before this process."""
    seen: set[int] = field(default_factory=set)
    """Structural hashes of the timed modules."""
    empty: int = 0
    """Number of batches in a row without a new schedule."""

    def recall(self) -> bool:
        """Count earlier records; returns True if trials are missing."""
        self.lines = self.journal.known(self.progress.task.module, self.target_json())
        self.progress.found = len(self.lines)
        for line in self.lines:
            self.progress.count(line.seconds)
        self.progress.finished = self.progress.left <= 0
        return not self.progress.finished

    def target_json(self) -> Any:
        """Target as stored in records."""
        return json.loads(str(self.target))

    @property
    def batch(self) -> int:
        """Number of schedules per batch."""
        return max(1, min(_MOST_PER_BATCH, -(-self.progress.wanted // _BATCHES)))

    def give_up(self, error: Exception) -> None:
        """Abandon the task."""
        self.progress.error = str(error).strip().splitlines()[-1] if str(error) else repr(error)
        self.progress.finished = True
        self.context = None
        _LOG.info("task %s is abandoned: %s", self.progress.task.name, error)

    def run_batch(self, device: Device, report: OnTrial) -> None:
        """Propose, time and record a batch of schedules, then train the cost model."""
        with _uninterrupted():
            context = self.context or self._start()
            candidates = context.generate_measure_candidates()
        new = list(self._new(candidates or ()))[: self.progress.left]
        self.empty = 0 if new else self.empty + 1
        if candidates is None or self.empty >= _EMPTY:
            self._finish(report)
            return
        results: list[RunnerResult] = [RunnerResult(None, "not run")] * len(new)
        for index, outcome in device.measure([self._request(candidate) for candidate in new]):
            results[index] = self._record(new[index], outcome, report)
        with _uninterrupted():
            told = [RunnerResult(None, "known")] * len(candidates)
            context.notify_runner_results(candidates, told)
            self.model.update(context, new, results)
        if not self.progress.left:
            self._finish(report)

    def _finish(self, report: OnTrial) -> None:
        self.progress.finished = True
        if self.context is not None:
            self.context.post_tuning()
        self.context = None
        report(self.progress)

    def _start(self) -> meta_schedule.TuneContext:
        fewest, most = _POPULATION
        population = min(most, max(fewest, _POPULATION_PER_TRIAL * self.batch))
        context = meta_schedule.TuneContext(
            mod=self.progress.task.module,
            target=self.target,
            space_generator="post-order-apply",
            search_strategy=EvolutionarySearch(
                population_size=population, init_min_unmeasured=min(50, population // 2)
            ),
            task_name=self.progress.task.name,
            rand_state=self.seed + 1,
            num_threads=available_threads(),
        )
        self._remember(context)
        context.pre_tuning(1 << 30, self.batch, database=self.database, cost_model=self.model)
        self.context = context
        return context

    def _remember(self, context: meta_schedule.TuneContext) -> None:
        """Load earlier records into the database and the cost model."""
        workload = self.database.commit_workload(self.progress.task.module)
        candidates, results = [], []
        for line in self.lines:
            try:
                record = TuningRecord.from_json(line.json, workload)
                candidate = record.as_measure_candidate()
            except Exception as error:
                # TVM raises anything for a damaged record. It counts as a trial all the same.
                _LOG.info("task %s: a record is not read: %s", self.progress.task.name, error)
                continue
            self.seen.add(tvm_ffi.structural_hash(candidate.sch.mod))
            if line.seconds:
                self.database.commit_tuning_record(record)
            candidates.append(candidate)
            results.append(RunnerResult(line.seconds or None, None if line.seconds else "failed"))
        if candidates:
            self.model.update(context, candidates, results)

    def _new(self, candidates: Sequence[Any]) -> Iterator[Any]:
        """Candidates that were not timed yet."""
        for candidate in candidates:
            digest = tvm_ffi.structural_hash(candidate.sch.mod)
            if digest not in self.seen:
                self.seen.add(digest)
                yield candidate

    def _request(self, candidate: Any) -> Request:
        return {
            "module": tvm.ir.save_json(candidate.sch.mod),
            "target": self.target_json(),
            "arguments": [info.as_json() for info in candidate.args_info],
            "threads": self.threads,
        }

    def _record(self, candidate: Any, outcome: Times | Failure, report: OnTrial) -> RunnerResult:
        """Record the outcome of one trial."""
        times = () if isinstance(outcome, Failure) else outcome
        record = TuningRecord(
            candidate.sch.trace,
            self.database.commit_workload(self.progress.task.module),
            list(times or (FAILED_S,)),
            self.target,
            candidate.args_info,
        )
        with _uninterrupted():
            if not isinstance(outcome, Failure) or outcome.is_reproducible:
                self.journal.append(record)
            self.progress.trials += 1
            self.progress.count(times)
            report(self.progress)
        if isinstance(outcome, Failure):
            _LOG.info("task %s: a schedule failed: %s", self.progress.task.name, outcome.reason)
            return RunnerResult(None, outcome.reason)
        self.database.commit_tuning_record(record)
        return RunnerResult(list(times), None)
