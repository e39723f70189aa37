"""The file that measurements are kept in: its tables, opening it, and replacing one that is broken."""

from __future__ import annotations

import contextlib
import fcntl
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

SCHEMA_VERSION = 1
_BUSY_S = 30.0
"""How long to wait for another process's write."""

SCHEMA = f"""
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
    machine TEXT, threads INTEGER, description TEXT NOT NULL, PRIMARY KEY (machine, threads)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS residual (
    kind TEXT, model TEXT, name TEXT, key TEXT NOT NULL, decision TEXT,
    machine TEXT, versions TEXT, threads INTEGER,
    predicted_us REAL NOT NULL, spread_us REAL NOT NULL, source TEXT NOT NULL,
    in_plan_us REAL NOT NULL, in_plan_spread_us REAL NOT NULL, merged INTEGER NOT NULL, parts TEXT NOT NULL,
    date TEXT NOT NULL,
    PRIMARY KEY (kind, model, name, decision, machine, versions, threads)) WITHOUT ROWID;
PRAGMA user_version = {SCHEMA_VERSION};
"""


def connect(path: Path | str) -> sqlite3.Connection:
    """Open and check; raises :class:`sqlite3.DatabaseError` for a file that is not our database."""
    connection = sqlite3.connect(path, timeout=_BUSY_S, isolation_level=None)
    try:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=NORMAL")
        ((version,),) = connection.execute("PRAGMA user_version").fetchall()
        if version not in (0, SCHEMA_VERSION):
            raise sqlite3.DatabaseError(f"schema version {version}, expected {SCHEMA_VERSION}")
        ((verdict,), *_) = connection.execute("PRAGMA quick_check").fetchall()
        if verdict != "ok":
            raise sqlite3.DatabaseError(verdict)
        connection.executescript(SCHEMA)
        for table in ("measurement", "boundary"):
            connection.execute(f"SELECT * FROM {table} LIMIT 1").fetchall()
    except BaseException:
        connection.close()
        raise
    return connection


def move_aside(path: Path) -> Path:
    """Rename a file that is of no use, with what SQLite keeps beside it; returns the new name."""
    aside = path.with_name(f"{path.name}.corrupt-{time.time_ns()}")
    path.replace(aside)
    for suffix in ("-wal", "-shm"):
        with contextlib.suppress(FileNotFoundError):
            Path(f"{path}{suffix}").replace(f"{aside}{suffix}")
    return aside


@contextlib.contextmanager
def exclusive(path: Path) -> Iterator[None]:
    """Hold a file lock: of several processes that find a broken file, one replaces it."""
    with path.open("a", encoding="utf-8") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield
