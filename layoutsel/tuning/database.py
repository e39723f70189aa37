"""Folder of tuning records: read for planning and building, appended to while tuning."""

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

from layoutsel.tuning.lines import RECORDS, VERSION, WORKLOADS, Lines, RecordLine
from tvm_passes.errors import LayoutselError

_LOG = logging.getLogger(__name__)


def default_folder() -> Path:
    """Default folder of tuning records, in the user's cache folder."""
    return Path(platformdirs.user_cache_dir("layoutsel")) / "tuning"


def tuning_records(folder: Path | None = None) -> AbstractContextManager[Any]:
    """Context in which TVM passes see the records of a folder.

    Parameters
    ----------
    folder
        Folder of the records; the default one, if it exists, if None.

    Raises
    ------
    LayoutselError
        If the given folder has no records.
    """
    if folder is None and not (default_folder() / RECORDS).exists():
        return nullcontext()
    return open_database(folder or default_folder())


def open_database(folder: Path) -> Database:
    """Read the fastest record of each workload and target; skipped lines are logged.

    Raises
    ------
    LayoutselError
        If the folder has no records.
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
        module = _parse_workload(line.workload.json)
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
        advice = "; tune again with 'layoutsel tune'" if VERSION in skipped else ""
        _LOG.warning("tuning records in %s: skipped %s%s", folder, told, advice)
    return database


def _fastest(lines: Lines) -> dict[tuple[int, str], RecordLine]:
    best: dict[tuple[int, str], RecordLine] = {}
    for line in lines.records:
        key = (line.workload.index, json.dumps(line.target, sort_keys=True))
        if line.seconds and (key not in best or _mean(line) < _mean(best[key])):
            best[key] = line
    return best


def _mean(line: RecordLine) -> float:
    """Mean time, by which TVM orders records, seconds."""
    return sum(line.seconds) / len(line.seconds)


def _parse_workload(workload: Any) -> tvm.IRModule | None:
    """Module of a workload's JSON; None if TVM cannot read it."""
    try:
        return Workload.from_json(workload).mod
    except Exception:  # TVM raises anything for a damaged graph
        return None


def _parse(line: RecordLine, workload: Workload) -> TuningRecord | None:
    try:
        return TuningRecord.from_json(line.json, workload)
    except Exception:  # TVM raises anything for a damaged record
        return None


class Journal:
    """A folder of tuning records, open for one tuning process; a context manager.

    Every record is on disk as soon as it is made.

    Parameters
    ----------
    folder
        Folder to create or continue.
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
                f"another process is tuning into {self.folder}: wait for it, or choose another "
                "folder"
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
            module = _parse_workload(line.json) if line else None
            if module is not None:
                self._bucket(module).append((module, index))

    def _bucket(self, module: tvm.IRModule) -> list[tuple[tvm.IRModule, int]]:
        return self._known.setdefault(tvm_ffi.structural_hash(module), [])

    def _index(self, module: tvm.IRModule) -> int | None:
        """Line number of a workload; None if it is not recorded."""
        for known, index in self._bucket(module):
            if tvm_ffi.structural_equal(known, module):
                return index
        return None

    def known(self, module: tvm.IRModule, target: Any) -> list[RecordLine]:
        """Records of a workload and target from before this process, including failures."""
        index = self._index(module)
        return [
            line
            for line in self.lines.records
            if line.workload.index == index and line.target == target
        ]

    def append(self, module: tvm.IRModule, record: Any) -> None:
        """Append one record of a workload, as JSON."""
        index = self._index(module)
        if index is None:
            index = self._lines
            _append(self.folder / WORKLOADS, Workload(module).as_json())
            self._lines += 1
            self._bucket(module).append((module, index))
        _append(self.folder / RECORDS, [index, record])


def _append(path: Path, value: Any) -> None:
    """Append a line in one write, so that other processes see all of it or nothing."""
    line = (json.dumps(value, separators=(", ", ": ")) + "\n").encode()
    try:
        with path.open("ab", buffering=0) as stream:
            before = stream.seek(0, os.SEEK_END)
            if stream.write(line) != len(line):
                stream.truncate(before)  # the disk is full; the lock excludes other writers
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    except OSError as error:
        raise LayoutselError(f"cannot write {path}: {error.strerror or error}") from error


def _end_last_line(path: Path) -> None:
    """Add a newline after a last line that a crash cut short."""
    with contextlib.suppress(FileNotFoundError), path.open("rb+") as stream:
        if stream.seek(0, os.SEEK_END):
            stream.seek(-1, os.SEEK_END)
            if stream.read(1) != b"\n":
                stream.write(b"\n")
