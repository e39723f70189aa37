"""SQLite file of measurements: its tables, opening it, and replacing a damaged one.

Home folders may be network file systems. SQLite's write-ahead log needs memory that all its
processes share, so these file systems get a rollback journal instead. File locks may be missing as
well.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from layoutsel.core.file_systems import is_on_network
from layoutsel.core.file_versions import expected_version

_LOG = logging.getLogger(__name__)
SCHEMA_VERSION = 1
"""Version of the tables, stored in the file."""
BUSY_S = 30.0
"""Time to wait for another process's write, seconds."""
_JOURNAL_BUSY_S = 1.0
"""Time to wait for exclusive access to change the journal, seconds.

The next process that opens the file can change it as well.
"""
_LOOK_EVERY_S = 0.02
"""Time between attempts to lock a file, seconds."""
_SQLITE_BUSY = 5
"""SQLite's error number of a locked file."""

SCHEMA = """
CREATE TABLE IF NOT EXISTS measurement (
    key TEXT, decision TEXT, machine TEXT, versions TEXT, threads INTEGER,
    median_us REAL, spread_us REAL, runs INTEGER, failure TEXT, date TEXT NOT NULL,
    PRIMARY KEY (key, decision, machine, versions, threads)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS boundary (
    kind TEXT, source TEXT, destination TEXT, shape TEXT, dtype TEXT,
    machine TEXT, versions TEXT, threads INTEGER,
    bytes INTEGER NOT NULL, median_us REAL NOT NULL, spread_us REAL NOT NULL,
    runs INTEGER NOT NULL, date TEXT NOT NULL,
    PRIMARY KEY (kind, source, destination, shape, dtype, machine, versions, threads)
    ) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS workload (key TEXT PRIMARY KEY, description TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS hints (
    key TEXT, decision TEXT, machine TEXT, versions TEXT, threads INTEGER, hints TEXT NOT NULL,
    PRIMARY KEY (key, decision, machine, versions, threads)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS machine (
    machine TEXT, threads INTEGER, description TEXT NOT NULL,
    PRIMARY KEY (machine, threads)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS residual (
    kind TEXT, model TEXT, name TEXT, key TEXT NOT NULL, decision TEXT,
    machine TEXT, versions TEXT, threads INTEGER,
    predicted_us REAL NOT NULL, spread_us REAL NOT NULL, source TEXT NOT NULL,
    in_plan_us REAL NOT NULL, in_plan_spread_us REAL NOT NULL, merged INTEGER NOT NULL,
    parts TEXT NOT NULL, date TEXT NOT NULL,
    PRIMARY KEY (kind, model, name, decision, machine, versions, threads)) WITHOUT ROWID;
"""
_TABLES = ("measurement", "boundary", "workload", "hints", "machine", "residual")
"""Names of the tables in :data:`SCHEMA`."""


def connect(path: Path | str) -> sqlite3.Connection:
    """Open the file and create missing tables.

    Raises
    ------
    sqlite3.DatabaseError
        If the file is not a database of this schema.
    """
    if is_on_network(path):
        return _connect(path, "DELETE")
    try:
        return _connect(path, "WAL")
    except sqlite3.OperationalError as error:
        if getattr(error, "sqlite_errorcode", None) == _SQLITE_BUSY:
            raise
        return _connect(path, "DELETE")  # a write-ahead log fails only at the first use


def _connect(path: Path | str, journal: str) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=_JOURNAL_BUSY_S, isolation_level=None)
    try:
        with contextlib.suppress(sqlite3.OperationalError):  # a file in use keeps its journal
            _set_journal(connection, journal)
        connection.execute("PRAGMA locking_mode=NORMAL")
        connection.execute(f"PRAGMA busy_timeout={round(BUSY_S * 1000)}")
        ((version,),) = connection.execute("PRAGMA user_version").fetchall()
        if version not in (0, SCHEMA_VERSION):
            expected = expected_version(version, (SCHEMA_VERSION,), "Measure again")
            raise sqlite3.DatabaseError(f"got version {version}; expected {expected}")
        connection.executescript(SCHEMA)
        for table in _TABLES:
            connection.execute(f"SELECT * FROM {table} LIMIT 1").fetchall()
        if not version:  # written last and once, so that opening needs no write lock
            connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
    except BaseException:
        connection.close()
        raise
    return connection


def _set_journal(connection: sqlite3.Connection, wanted: str) -> None:
    """Choose the journal that makes writes safe.

    With a rollback journal, SQLite's default ``synchronous`` is needed against a loss of power.
    """
    if wanted == "DELETE":
        # Without shared memory, only a process with exclusive access can read an existing log.
        connection.execute("PRAGMA locking_mode=EXCLUSIVE")
    ((mode,),) = connection.execute(f"PRAGMA journal_mode={wanted}").fetchall()
    if mode == "wal":
        connection.execute("PRAGMA synchronous=NORMAL")


def check_whole(path: Path) -> None:
    """Read the whole file to find damage.

    Raises
    ------
    sqlite3.DatabaseError
        If a part of the file is damaged.
    """
    connection = sqlite3.connect(path, timeout=BUSY_S, isolation_level=None)
    try:
        ((verdict,), *_) = connection.execute("PRAGMA quick_check").fetchall()
    finally:
        connection.close()
    if verdict != "ok":
        raise sqlite3.DatabaseError(verdict)


def move_aside(path: Path) -> Path:
    """Rename an unusable file and SQLite's files next to it; returns the new name."""
    aside = path.with_name(f"{path.name}.corrupt-{time.time_ns()}")
    path.replace(aside)
    for suffix in ("-wal", "-shm"):
        with contextlib.suppress(FileNotFoundError):
            Path(f"{path}{suffix}").replace(f"{aside}{suffix}")
    return aside


@contextlib.contextmanager
def exclusive(path: Path) -> Iterator[None]:
    """Hold a file lock, so that only one of several processes replaces a damaged file.

    If the lock is not available, the work continues without it, with a warning.
    """
    with path.open("a", encoding="utf-8") as stream:
        try:
            _lock(stream)
        except OSError as error:
            _LOG.warning("cannot lock %s: %s; going on without the lock", path, error)
        yield


def _lock(stream: IO[str]) -> None:
    """Lock a file.

    Raises
    ------
    TimeoutError
        If another process holds the lock for :data:`BUSY_S`.
    """
    deadline = time.monotonic() + BUSY_S
    while True:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError as error:
            if time.monotonic() >= deadline:
                raise TimeoutError(f"another process holds it since {BUSY_S:g} s") from error
        time.sleep(_LOOK_EVERY_S)
