"""Proposal of schedules by MetaSchedule; a child process calls it by name, step by step.

The process keeps the search of each task between the steps. A new process rebuilds a search from
the trials in its first step.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tvm
import tvm_ffi
from tvm.s_tir import meta_schedule
from tvm.s_tir.meta_schedule.cost_model import CostModel, RandomModel, XGBModel
from tvm.s_tir.meta_schedule.database import MemoryDatabase, TuningRecord
from tvm.s_tir.meta_schedule.runner import RunnerResult
from tvm.s_tir.meta_schedule.search_strategy import EvolutionarySearch
from tvm.target import Target

from layoutsel.device.threads import available_threads
from layoutsel.tuning.devices import Times
from layoutsel.tuning.intrinsics import import_intrinsics
from layoutsel.tuning.log import logged

_LOG = logging.getLogger(__name__)

_POPULATION_PER_TRIAL, _POPULATION = 16, (32, 512)
"""Size of the evolution's population per timed schedule, and its lower and upper limit."""
_WARM_UP = 32
"""Number of trials after which the cost model is used."""
_EMPTY = 3
"""Number of batches without a new schedule after which a task ends."""


@dataclass(frozen=True, kw_only=True)
class TimedSchedule:
    """A schedule that was timed."""

    record: Any
    """Trace, seconds, target and arguments, as a JSON record of MetaSchedule."""
    times: Times
    """Time of each run, seconds; empty if the schedule did not build or run."""


@dataclass(frozen=True, kw_only=True)
class SearchStep:
    """Request for the next schedules of a task."""

    number: int
    """Number of the task, and seed of its evolution."""
    name: str
    """Name of the task, for messages."""
    module: str
    """Function to tune, as JSON."""
    target: Any
    """Target of the schedules, as JSON."""
    batch: int
    """Number of schedules per batch."""
    left: int
    """Number of missing trials, the maximum number of schedules to propose."""
    trials: tuple[TimedSchedule, ...]
    """All trials that the process does not know yet."""
    folder: Path
    """Folder of the log."""


@dataclass(frozen=True, kw_only=True)
class Proposal:
    """A schedule to time."""

    module: str
    """Scheduled module, as JSON."""
    record: Any
    """Trace, None, target and arguments, as a JSON record of MetaSchedule."""


class Proposer:
    """Searches of all tasks, and the cost model that they share."""

    def __init__(self) -> None:
        self._searches: dict[int, _Search] = {}
        self._model: CostModel | None = None

    def __call__(self, step: SearchStep) -> tuple[Proposal, ...]:
        """Propose the next schedules of a task; none if the search finds no new one."""
        with logged(step.folder):
            # A failed search is not continued, and one that proposes the last trials has ended.
            search = self._searches.pop(step.number, None) or self._new(step)
            search.learn(step.trials)
            found = tuple(search.proposals(step.left))
            if 0 < len(found) < step.left:
                self._searches[step.number] = search
            return found

    def _new(self, step: SearchStep) -> _Search:
        if self._model is None:
            import_intrinsics()
            self._model = _cost_model()
        return _Search(step, self._model)


propose = Proposer()
"""Function of a child process from a :class:`SearchStep` to proposals."""


def _cost_model() -> CostModel:
    try:
        import xgboost  # noqa: F401
    except ImportError:
        _LOG.warning("xgboost is not installed: schedules are picked at random")
        return RandomModel()
    return XGBModel(
        num_warmup_samples=_WARM_UP, num_tuning_cores=available_threads(), tree_method="hist"
    )


class _Search:
    """Search for schedules of one task."""

    def __init__(self, step: SearchStep, model: CostModel) -> None:
        fewest, most = _POPULATION
        population = min(most, max(fewest, _POPULATION_PER_TRIAL * step.batch))
        self._name, self._batch, self._model = step.name, step.batch, model
        self._target = Target(step.target)
        self._context = meta_schedule.TuneContext(
            mod=tvm.ir.load_json(step.module),
            target=self._target,
            space_generator="post-order-apply",
            search_strategy=EvolutionarySearch(
                population_size=population, init_min_unmeasured=min(50, population // 2)
            ),
            task_name=step.name,
            rand_state=step.number + 1,
            num_threads=available_threads(),
        )
        self._database = MemoryDatabase()  # timed schedules, for the evolution
        self._workload = self._database.commit_workload(self._context.mod)
        self._seen: set[int] = set()  # structural hashes of the timed modules
        self._is_prepared = False

    def learn(self, trials: Sequence[TimedSchedule]) -> None:
        """Add trials to the database and the cost model."""
        candidates, results = [], []
        for trial in trials:
            try:
                record = TuningRecord.from_json(trial.record, self._workload)
                candidate = record.as_measure_candidate()
            except Exception as error:
                # TVM raises anything for a damaged record. It counts as a trial all the same.
                _LOG.info("task %s: a record is not read: %s", self._name, error)
                continue
            self._seen.add(tvm_ffi.structural_hash(candidate.sch.mod))
            if trial.times:
                self._database.commit_tuning_record(record)
            candidates.append(candidate)
            results.append(RunnerResult(trial.times or None, None if trial.times else "failed"))
        if candidates:
            self._model.update(self._context, candidates, results)

    def proposals(self, most: int) -> Iterator[Proposal]:
        """Yield up to `most` schedules that were not timed yet."""
        if not self._is_prepared:
            self._context.pre_tuning(
                1 << 30, self._batch, database=self._database, cost_model=self._model
            )
            self._is_prepared = True
        for _ in range(_EMPTY):
            candidates = self._context.generate_measure_candidates()
            if candidates is None:
                return
            told = [RunnerResult(None, "known")] * len(candidates)
            self._context.notify_runner_results(candidates, told)
            new = list(self._new(candidates))[:most]
            yield from map(self._proposal, new)
            if new:
                return

    def _new(self, candidates: Sequence[Any]) -> Iterator[Any]:
        """Candidates that were not timed yet."""
        for candidate in candidates:
            digest = tvm_ffi.structural_hash(candidate.sch.mod)
            if digest not in self._seen:
                self._seen.add(digest)
                yield candidate

    def _proposal(self, candidate: Any) -> Proposal:
        record = TuningRecord(
            candidate.sch.trace, self._workload, None, self._target, candidate.args_info
        )
        return Proposal(module=tvm.ir.save_json(candidate.sch.mod), record=record.as_json())
