"""Schedules found by MetaSchedule: the algorithm ``tuned``, if the current database has a record.

The current database is the one entered as a context, which is TVM's convention:
``with JSONDatabase(work_dir=...):``.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from tvm import s_tir, tirx
from tvm.s_tir.meta_schedule.database import (
    Database,
    MemoryDatabase,
    TuningRecord,
    Workload,
)
from tvm.target import Target

from tvm_passes.errors import BuildError
from tvm_passes.tunable import Tunable

SCHEDULED = "tirx.is_scheduled"
"""TVM's attribute of code that no rule may schedule again."""

_BEST = 1 << 20
"""A number that exceeds the number of records of any sub-graph."""


def current_database() -> Database | None:
    """Return the database that was entered last in this thread."""
    return Database.current()


def find_record(task: Tunable, target: Target) -> TuningRecord | None:
    """Return the fastest record for `task` on `target` in the current database, or None."""
    database = current_database()
    if database is None or not database.has_workload(task.module):
        return None
    records = database.get_top_k(database.commit_workload(task.module), _BEST)
    return next((record for record in records if fits(record.target, target)), None)


def fits(tuned_for: Target | None, target: Target) -> bool:
    """Return whether code tuned for one target fits another: the same CPU, or an equal GPU.

    The number of cores may differ.
    """
    return tuned_for is not None and _processor(tuned_for) == _processor(target)


_PROCESSOR = ("mcpu", "mattr", "mtriple", "arch")
"""Attributes of a target that identify its processor."""
_LIMITS: Mapping[str, tuple[str, ...]] = {
    "opencl": ("max_num_threads", "max_threads_per_block", "max_shared_memory_per_block")
}
"""Attributes that distinguish devices whose targets name no processor, by kind."""


def _processor(target: Target) -> tuple[object, ...]:
    """Return the attributes that identify a target's processor."""
    kind, attrs = target.kind.name, target.attrs
    return kind, *(str(attrs.get(key)) for key in (*_PROCESSOR, *_LIMITS.get(kind, ())))


def scheduled(record: TuningRecord) -> tirx.PrimFunc:
    """Return the code that `record` describes.

    Raises
    ------
    BuildError
        If its trace does not apply, for example because another version of TVM wrote it.
    """
    schedule = s_tir.Schedule(record.workload.mod, error_render_level="none")
    try:
        record.trace.apply_to_schedule(schedule, remove_postproc=False)
    except (s_tir.schedule.ScheduleError, RuntimeError, ValueError, TypeError) as error:
        reason = str(error).strip().splitlines()[-1]
        raise BuildError(f"the tuning record's trace does not apply: {reason}") from error
    code = schedule.mod["main"].without_attr("global_symbol")
    return code.with_attr(SCHEDULED, True)


def record_text(task: Tunable, target: Target) -> str:
    """Return the record with which `task` would be lowered, as JSON; empty if there is none."""
    record = find_record(task, target)
    return json.dumps([record.workload.as_json(), record.as_json()]) if record else ""


def recorded_us(text: str) -> float:
    """Return the measured time in a record of :func:`record_text`, microseconds."""
    seconds = json.loads(text)[1][1]
    return 1e6 * sum(seconds) / len(seconds)


def tuned_code(task: Tunable | str, target: Target) -> tirx.PrimFunc:
    """Return the code of the fastest record for `task`.

    Raises
    ------
    BuildError
        If there is no task, no record for it, or one that does not apply.
    """
    if isinstance(task, str):
        raise BuildError(f"it cannot be tuned code: {task}")
    record = find_record(task, target)
    if record is None:
        raise BuildError("it cannot be tuned code: the database at hand has no record for it")
    return scheduled(record)


@contextmanager
def database_of(text: str | None) -> Iterator[None]:
    """Enter a database with the one record of :func:`record_text`; none if the text is empty."""
    if not text:
        yield
        return
    workload_json, record_json = json.loads(text)
    database = MemoryDatabase()
    workload = database.commit_workload(Workload.from_json(workload_json).mod)
    database.commit_tuning_record(TuningRecord.from_json(record_json, workload))
    with database:
        yield
