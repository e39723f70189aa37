"""The folder of tuning records: found, opened for planning and building, appended to while tuning."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import logging
import os
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import platformdirs
import tvm
import tvm_ffi
from tvm.s_tir.meta_schedule.database import (
    Database,
    MemoryDatabase,
    TuningRecord,
    Workload,
)

from layoutsel.tuning.lines import RECORDS, WORKLOADS, Lines, RecordLine
from layoutsel.tuning.records import parse_workload
from tvm_passes.errors import LayoutselError

_LOG = logging.getLogger(__name__)


def default_folder() -> Path:
    """Where tuning records lie unless told otherwise: in the user's cache folder."""
    return Path(platformdirs.user_cache_dir("layoutsel")) / "tuning"


def tuning_records(folder: Path | None = None) -> AbstractContextManager[Any]:
    """Make what is recorded in `folder` visible to the passes, within the context that this is.

    Where no folder is given, the default one is taken if it exists.

    Raises
    ------
    LayoutselError
        If the given folder has no records.
    """
    if folder is None and not (default_folder() / RECORDS).exists():
        return nullcontext()
    return open_database(folder or default_folder())


def open_database(folder: Path) -> Database:
    """The fastest record of each workload and target in `folder`; skipped lines are counted in a warning.

    Raises
    ------
    LayoutselError
        If there is no database.
    """
    if not (folder / RECORDS).is_file():
        raise LayoutselError(
            f"no tuning records in {folder}: got no {RECORDS}; expected a folder that "
            f"'layoutsel tune --logs' wrote"
        )
    lines = Lines(folder, tvm.__version__)
    unreadable = 0
    database = MemoryDatabase()
    for line in _fastest(lines).values():
        module = parse_workload(line.workload.json)
        record = None if module is None else _parse(line, database.commit_workload(module))
        if record is None:
            unreadable += 1
        else:
            database.commit_tuning_record(record)
    skipped = {
        **lines.skipped,
        **({"line that TVM cannot parse": unreadable} if unreadable else {}),
    }
    if skipped:
        told = "; ".join(f"{count} × {reason}" for reason, count in skipped.items())
        _LOG.warning("tuning records in %s: skipped %s", folder, told)
    return database


def _fastest(lines: Lines) -> dict[tuple[int, str], RecordLine]:
    best: dict[tuple[int, str], RecordLine] = {}
    for line in lines.records:
        key = (line.workload.index, json.dumps(line.target, sort_keys=True))
        if line.seconds and (key not in best or _mean(line) < _mean(best[key])):
            best[key] = line
    return best


def _mean(line: RecordLine) -> float:
    """TVM orders records by their mean time."""
    return sum(line.seconds) / len(line.seconds)


def _parse(line: RecordLine, workload: Workload) -> TuningRecord | None:
    try:
        return TuningRecord.from_json(line.json, workload)
    except Exception:  # whatever TVM makes of a damaged record
        return None


class Journal:
    """The folder while it is tuned into: one process at a time, every record on disk when it is made.

    A context manager.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._known: dict[int, list[tuple[tvm.IRModule, int]]] = {}
        self._lines = 0
        self._lock: Any = None

    def __enter__(self) -> Journal:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._lock = (self.folder / ".lock").open("a", encoding="utf-8")
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise LayoutselError(
                f"another process is tuning into {self.folder}: wait for it, or choose another folder"
            ) from None
        except OSError as error:
            raise LayoutselError(
                f"cannot write tuning records to {self.folder}: {error.strerror or error}"
            ) from error
        self._read()
        return self

    def __exit__(self, *_error: object) -> None:
        self._lock.close()

    def _read(self) -> None:
        for name in (WORKLOADS, RECORDS):
            _end_last_line(self.folder / name)
        self.lines = Lines(self.folder, tvm.__version__)
        self._lines = len(self.lines.workloads)
        for index, line in self.lines.workloads.items():
            module = parse_workload(line.json) if line else None
            if module is not None:
                self._bucket(module).append((module, index))

    def _bucket(self, module: tvm.IRModule) -> list[tuple[tvm.IRModule, int]]:
        return self._known.setdefault(tvm_ffi.structural_hash(module), [])

    def _index(self, module: tvm.IRModule) -> int | None:
        """Line of a workload; None if it has none."""
        for known, index in self._bucket(module):
            if tvm_ffi.structural_equal(known, module):
                return index
        return None

    def known(self, module: tvm.IRModule, target: Any) -> list[RecordLine]:
        """What was recorded of a workload on a target before this process, schedules that failed included."""
        index = self._index(module)
        return [
            line
            for line in self.lines.records
            if line.workload.index == index and line.target == target
        ]

    def append(self, record: TuningRecord) -> None:
        """Write one record."""
        module = record.workload.mod
        index = self._index(module)
        if index is None:
            index = self._lines
            _append(self.folder / WORKLOADS, record.workload.as_json())
            self._lines += 1
            self._bucket(module).append((module, index))
        _append(self.folder / RECORDS, [index, record.as_json()])


def _append(path: Path, value: Any) -> None:
    """Add a line in one write, so that another process sees all of it or nothing."""
    line = (json.dumps(value, separators=(", ", ": ")) + "\n").encode()
    try:
        with path.open("ab", buffering=0) as stream:
            before = stream.seek(0, os.SEEK_END)
            if stream.write(line) != len(line):
                stream.truncate(before)  # no room; the lock makes this process the only writer
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    except OSError as error:
        raise LayoutselError(f"cannot write {path}: {error.strerror or error}") from error


def _end_last_line(path: Path) -> None:
    """Keep what comes next apart from a line that a crash cut short."""
    with contextlib.suppress(FileNotFoundError), path.open("rb+") as stream:
        if stream.seek(0, os.SEEK_END):
            stream.seek(-1, os.SEEK_END)
            if stream.read(1) != b"\n":
                stream.write(b"\n")
