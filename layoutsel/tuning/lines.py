"""Lines of a MetaSchedule database, read without TVM from files that may be damaged."""

from __future__ import annotations

import base64
import binascii
import json
import math
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

WORKLOADS, RECORDS = "database_workload.json", "database_tuning_record.json"
"""File names of the workloads and of the records."""
UNTIMED_S = 1e9
"""Lowest time that stands for a failure, seconds; TVM writes 1e10 for failed schedules."""

TRUNCATED = "truncated last line"
BROKEN = "line that is not JSON"
FORM = "line of an unknown form or version"
VERSION = "workload of an unknown version"
MISSING = "record of a missing workload"
UNREADABLE = "record whose workload cannot be read"
TIMES = "record with invalid times"
NO_FILE = "missing file"

_VERSION_KEY = re.compile(rb'"tvm_version"\s*:\s*"([^"]*)"')
"""Entry of a workload with TVM's version."""


@dataclass(frozen=True, kw_only=True)
class WorkloadLine:
    """One readable line of the workloads."""

    index: int
    """Number of the line; records refer to it."""
    hash: str
    """Structural hash, as written."""
    json: Any
    """Parsed line, for TVM."""
    version: str
    """Version of the TVM that wrote it; empty if not stated."""


@dataclass(frozen=True, kw_only=True)
class RecordLine:
    """One readable line of the records."""

    workload: WorkloadLine
    """Workload of the schedule."""
    json: Any
    """Trace, seconds, target and arguments, for TVM."""
    seconds: tuple[float, ...]
    """Time of each run, seconds; empty if the schedule did not build or run."""

    @property
    def target(self) -> Any:
        """Target of the schedule, as JSON."""
        return self.json[2]


class Lines:
    """Readable lines of a folder's database, with counts of skipped lines by reason."""

    def __init__(self, folder: Path, version: str) -> None:
        """Read both files.

        Parameters
        ----------
        folder
            Folder of the database.
        version
            Version of TVM that has to read the workloads, such as ``0.27.0``.
        """
        self.skipped: Counter[str] = Counter()
        self._version = _minor(version)
        self.workloads = dict(self._read_workloads(folder / WORKLOADS))
        self.records = tuple(self._read_records(folder / RECORDS))

    def _lines(self, path: Path) -> Iterator[tuple[int, Any]]:
        """Number and JSON of every line; None in place of a broken line."""
        try:
            content = path.read_bytes()
        except OSError:
            self.skipped[NO_FILE] += 1
            return
        lines = content.split(b"\n")
        for number, line in enumerate(lines):
            if not line.strip():
                if number < len(lines) - 1:
                    yield number, None
                continue
            try:
                yield number, json.loads(line)
            except (ValueError, RecursionError):
                is_last = number == len(lines) - 1
                self.skipped[TRUNCATED if is_last else BROKEN] += 1
                yield number, None

    def _read_workloads(self, path: Path) -> Iterator[tuple[int, WorkloadLine | None]]:
        for number, value in self._lines(path):
            yield number, None if value is None else self._workload(number, value)

    def _workload(self, number: int, value: Any) -> WorkloadLine | None:
        try:
            shash, encoded = value
            written = _VERSION_KEY.search(base64.b64decode(encoded, validate=False))
        except (TypeError, ValueError, binascii.Error):
            self.skipped[FORM] += 1
            return None
        version = written.group(1).decode(errors="replace") if written else ""
        if version and _minor(version) != self._version:
            self.skipped[VERSION] += 1
            return None
        return WorkloadLine(index=number, hash=str(shash), json=value, version=version)

    def _read_records(self, path: Path) -> Iterator[RecordLine]:
        for _, value in self._lines(path):
            record = None if value is None else self._record(value)
            if record is not None:
                yield record

    def _record(self, value: Any) -> RecordLine | None:
        if not _is_record(value):
            self.skipped[FORM] += 1
            return None
        index, record = value
        if index not in self.workloads:
            self.skipped[MISSING] += 1
            return None
        workload = self.workloads[index]
        if workload is None:
            self.skipped[UNREADABLE] += 1
            return None
        try:
            seconds = _seconds(record[1])
        except (TypeError, ValueError):
            self.skipped[TIMES] += 1
            return None
        return RecordLine(workload=workload, json=record, seconds=seconds)


def _minor(version: str) -> tuple[str, ...]:
    """Major and minor version, which determine the format."""
    return tuple(version.split(".")[:2])


def _is_record(value: Any) -> bool:
    """True for ``[workload, [[instructions, decisions], seconds, target, arguments]]``."""
    if not (isinstance(value, list) and len(value) == 2 and isinstance(value[1], list)):
        return False
    index, record = value
    trace = record[0] if len(record) == 4 else None
    is_trace = isinstance(trace, list) and len(trace) == 2 and isinstance(trace[0], list)
    return isinstance(index, int) and not isinstance(index, bool) and is_trace


def _seconds(value: Any) -> tuple[float, ...]:
    """Times of a record; empty if it was not timed.

    Raises
    ------
    ValueError, TypeError
        If the value is not a list of positive numbers.
    """
    times = tuple(float(second) for second in value or ())
    if any(math.isnan(second) or second <= 0 for second in times):
        raise ValueError(f"not times: {value}")
    return () if any(second >= UNTIMED_S for second in times) else times
