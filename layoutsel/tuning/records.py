"""Records of a MetaSchedule database as plain data, for learning."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import tvm

from layoutsel.tuning.lines import FORM, UNREADABLE, UNTIMED, Lines, RecordLine

_QUARTERS = 4
"""Number of parts that quartiles separate; fewer times have none."""


@dataclass(frozen=True, kw_only=True)
class TuningRecord:
    """One timed schedule."""

    workload_hash: str
    """Structural hash of the workload, as stored in the database."""
    target: str
    """Target of the schedule, as JSON."""
    median_us: float
    """Median time of one run, microseconds."""
    spread_us: float
    """Half the interquartile range, microseconds."""
    runs: int
    """Number of measured times."""
    flops: float
    """Floating-point operations of the workload."""
    argument_shapes: tuple[tuple[int, ...], ...]
    """Shapes of the arguments in memory, the result last."""
    trace_json: str
    """Instructions and decisions of the schedule, as JSON."""


@dataclass(frozen=True)
class SkippedRecords:
    """Number of records that were skipped for one reason."""

    reason: str
    """Reason, as a noun phrase."""
    count: int
    """Number of records."""


@dataclass(frozen=True)
class Reading:
    """Contents of a database."""

    records: tuple[TuningRecord, ...]
    """Timed records."""
    skipped: tuple[SkippedRecords, ...]
    """Skipped lines by reason, most frequent first."""


def read_records(folder: Path | str) -> Reading:
    """Read all timed records of a MetaSchedule database; unreadable lines are counted."""
    lines = Lines(Path(folder), tvm.__version__)
    skipped = lines.skipped

    @cache
    def flops(index: int) -> float | None:
        workload = lines.workloads[index]
        return None if workload is None else _flops(workload.json)

    records: list[TuningRecord] = []
    for line in lines.records:
        if not line.seconds:
            skipped[UNTIMED] += 1
            continue
        reason = _append(records, line, flops)
        if reason:
            skipped[reason] += 1
    return Reading(
        tuple(records),
        tuple(SkippedRecords(reason, count) for reason, count in skipped.most_common()),
    )


def _append(
    records: list[TuningRecord], line: RecordLine, flops: Callable[[int], float | None]
) -> str | None:
    """Add the record of a line; returns a reason instead if it is not readable."""
    count = flops(line.workload.index)
    if count is None:
        return UNREADABLE
    try:
        shapes = tuple(tuple(int(dim) for dim in shape) for _, _, shape in line.json[3] or ())
    except (TypeError, ValueError):
        return FORM
    times_us = [1e6 * second for second in line.seconds]
    records.append(
        TuningRecord(
            workload_hash=line.workload.hash,
            target=json.dumps(line.target, sort_keys=True),
            median_us=statistics.median(times_us),
            spread_us=_spread(times_us),
            runs=len(times_us),
            flops=count,
            argument_shapes=shapes,
            trace_json=json.dumps(line.json[0]),
        )
    )
    return None


def _spread(times: list[float]) -> float:
    if len(times) < _QUARTERS:
        return (max(times) - min(times)) / 2
    lower, _, upper = statistics.quantiles(times, n=_QUARTERS)
    return (upper - lower) / 2


def _flops(workload: Any) -> float | None:
    """Floating-point operations of a workload; None if TVM cannot read it."""
    module = parse_workload(workload)
    return None if module is None else float(tvm.s_tir.analysis.estimate_tir_flops(module))


def parse_workload(workload: Any) -> tvm.IRModule | None:
    """Module of a workload's JSON; None if TVM cannot read it."""
    from tvm.s_tir.meta_schedule.database import Workload

    try:
        return Workload.from_json(workload).mod
    except Exception:  # TVM raises anything for a damaged graph
        return None
