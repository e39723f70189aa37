"""The lines of a MetaSchedule database, whatever state its two files are in. Knows nothing of TVM but the format."""

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
UNTIMED_S = 1e9
"""TVM writes 1e10 seconds for a schedule that did not build or run."""

TRUNCATED = "truncated last line"
BROKEN = "line that is no JSON"
FORM = "line of an unknown form or version"
VERSION = "workload of an unknown version"
MISSING = "record that points at a missing workload"
UNREADABLE = "record whose workload cannot be read"
UNTIMED = "schedule that did not build or run"
TIMES = "times that are no times"
NO_FILE = "missing file"

_VERSION_KEY = re.compile(rb'"tvm_version"\s*:\s*"([^"]*)"')


@dataclass(frozen=True, kw_only=True)
class WorkloadLine:
    """One workload."""

    index: int
    """Its line, by which records name it."""
    hash: str
    """Structural hash, as written."""
    json: Any
    """What TVM reads."""
    version: str
    """TVM's version that wrote it; empty where it does not say."""


@dataclass(frozen=True, kw_only=True)
class RecordLine:
    """One measured schedule."""

    workload: WorkloadLine
    json: Any
    """What TVM reads: trace, seconds, target, arguments."""
    seconds: tuple[float, ...]
    """Time of each run; empty where it did not build or run."""

    @property
    def target(self) -> Any:
        """Target that it was tuned for, as JSON."""
        return self.json[2]


class Lines:
    """The readable lines of the database in a folder, and how many were skipped for which reason."""

    def __init__(self, folder: Path, version: str) -> None:
        """Read.

        Parameters
        ----------
        folder
            Where the two files lie.
        version
            The version of TVM that is to understand the workloads, such as ``0.27.0``.
        """
        self.skipped: Counter[str] = Counter()
        self._version = _minor(version)
        self.workloads = dict(self._read_workloads(folder / WORKLOADS))
        self.records = tuple(self._read_records(folder / RECORDS))

    def _lines(self, path: Path) -> Iterator[tuple[int, Any]]:
        """Number and JSON of every line; None for one that is none, so that the others keep their numbers."""
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
    """Major and minor version: what decides on the format."""
    return tuple(version.split(".")[:2])


def _is_record(value: Any) -> bool:
    """True if it is ``[workload, [[instructions, decisions], seconds, target, arguments]]``."""
    if not (isinstance(value, list) and len(value) == 2 and isinstance(value[1], list)):
        return False
    index, record = value
    trace = record[0] if len(record) == 4 else None
    is_trace = isinstance(trace, list) and len(trace) == 2 and isinstance(trace[0], list)
    return isinstance(index, int) and not isinstance(index, bool) and is_trace


def _seconds(value: Any) -> tuple[float, ...]:
    """The times of a record; none where it was not timed.

    Raises
    ------
    ValueError, TypeError
        If they are no times.
    """
    times = tuple(float(second) for second in value or ())
    if any(math.isnan(second) or second <= 0 for second in times):
        raise ValueError(f"not times: {value}")
    return () if any(second >= UNTIMED_S for second in times) else times
