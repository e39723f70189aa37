"""A MetaSchedule database as plain data, for whoever learns from it: any target, any state of its files."""

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


@dataclass(frozen=True, kw_only=True)
class TuningRecord:
    """One timed schedule."""

    workload_hash: str
    """Structural hash of the workload, as the database has it."""
    target: str
    """Target that it was tuned for, as JSON."""
    median_us: float
    """Microseconds of one run."""
    spread_us: float
    """Half the distance between the quartiles, microseconds."""
    runs: int
    """How many times the median is taken over."""
    flops: float
    """Floating-point operations of the workload."""
    argument_shapes: tuple[tuple[int, ...], ...]
    """Shapes of the arguments as they lie in memory, the result last."""
    trace_json: str
    """The schedule: instructions and decisions."""


@dataclass(frozen=True)
class SkippedRecords:
    """What was not read."""

    reason: str
    count: int


@dataclass(frozen=True)
class Reading:
    """What a database holds."""

    records: tuple[TuningRecord, ...]
    skipped: tuple[SkippedRecords, ...]
    """The reasons, the most frequent first."""


def read_records(folder: Path | str) -> Reading:
    """Every timed record of the MetaSchedule database in `folder`; whatever cannot be read is counted by reason."""
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
    """Add the record of `line`, or say why it is none."""
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
    """Operations of a workload; None if TVM cannot read it."""
    module = parse_workload(workload)
    return None if module is None else float(tvm.s_tir.analysis.estimate_tir_flops(module))


def parse_workload(workload: Any) -> tvm.IRModule | None:
    """The module of a workload's JSON; None if TVM cannot read it."""
    from tvm.s_tir.meta_schedule.database import Workload

    try:
        return Workload.from_json(workload).mod
    except Exception:  # whatever TVM makes of a damaged graph
        return None
