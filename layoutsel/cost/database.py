"""An open SQLite file of a cache that survives a damaged, replaced or unusable file.

An unusable file loses its contents; the work that uses the cache continues without them.
"""

from __future__ import annotations

import contextlib
import logging
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from layoutsel.cost.store_file import check_whole, connect, exclusive, move_aside
from tvm_passes.errors import LayoutselError

_LOG = logging.getLogger(__name__)
_SQLITE_ERROR, _SQLITE_DONE = 1, 101
"""SQLite's error numbers, which the module ``sqlite3`` names only since Python 3.11."""

Statement = tuple[str, Sequence[object]]
"""An SQL statement with the values of its parameters."""


class Database:
    """Statements on the file at `path`, each in its own transaction unless one is open.

    A file that is not a database, or has another schema, is moved aside with a warning. If the file
    cannot be used, or stays locked by another process, a copy in memory replaces it, with one
    warning.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.is_kept = True
        """True if changes reach the file; False if they last for this process only."""
        self._transaction: list[Statement] | None = None
        self._file: tuple[int, int] | None = None
        """Device and inode of the open file; None for a database in memory."""
        self._connection = self._open()

    def close(self) -> None:
        """Close the file; all changes are saved already."""
        self._connection.close()

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """Save all changes made within the context, or none if it fails."""
        self._transaction = []
        try:
            self.query("BEGIN IMMEDIATE")
            yield
            self.query("COMMIT")
        except BaseException:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            raise
        finally:
            self._transaction = None

    def query(self, statement: str, values: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        """Run one statement and return its rows.

        If a statement fails because of the file, all statements of its transaction are repeated on
        the replacement.

        Raises
        ------
        LayoutselError
            If the file's tables are not as expected.
        """
        try:
            if not statement.startswith("SELECT") and self._is_replaced():
                raise sqlite3.DatabaseError("the file was replaced")
            rows = self._connection.execute(statement, values).fetchall()
        except sqlite3.OperationalError as error:
            if getattr(error, "sqlite_errorcode", None) == _SQLITE_ERROR:
                raise LayoutselError(f"measurement cache {self.path}: {error}") from error
            self._connection = self._reopened() if self._is_replaced() else self._copied(error)
            rows = self._repeated(statement, values)
        except sqlite3.DatabaseError as error:
            if type(error) is not sqlite3.DatabaseError:
                raise  # a wrong statement, not a broken file
            self._connection = self._reopened()
            rows = self._repeated(statement, values)
        if self._transaction is not None:
            self._transaction.append((statement, values))
        return rows

    def _repeated(self, statement: str, values: Sequence[object]) -> list[tuple[Any, ...]]:
        try:
            return self._replayed(statement, values)
        except sqlite3.DatabaseError as error:
            if not self.is_kept:
                raise
            self._connection = self._copied(error)
            return self._replayed(statement, values)

    def _replayed(self, statement: str, values: Sequence[object]) -> list[tuple[Any, ...]]:
        for earlier in self._transaction or ():
            self._connection.execute(*earlier).fetchall()
        return self._connection.execute(statement, values).fetchall()

    def _open(self, *, is_suspect: bool = False) -> sqlite3.Connection:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with exclusive(self.path.with_name(self.path.name + ".lock")):
                connection = self._connect_or_replace(is_suspect=is_suspect)
                self._file = _identity(self.path)
                return connection
        except (OSError, sqlite3.OperationalError) as error:
            return self._in_memory(error)

    def _connect_or_replace(self, *, is_suspect: bool) -> sqlite3.Connection:
        try:
            if is_suspect:
                check_whole(self.path)
            return connect(self.path)
        except sqlite3.OperationalError:
            raise
        except sqlite3.DatabaseError as error:
            aside = move_aside(self.path)
            _LOG.warning(
                "measurement cache %s is unusable (%s): moved to %s, starting an empty one. "
                "Another file can be named (--cache)",
                self.path,
                error,
                aside,
            )
            return connect(self.path)

    def _is_replaced(self) -> bool:
        """True if another process has replaced the open file.

        With a write-ahead log, SQLite would go on writing to the old file.
        """
        return self._file is not None and _identity(self.path) != self._file

    def _reopened(self) -> sqlite3.Connection:
        """Open the file again; check it, and replace it unless another process has done so."""
        self._connection.close()
        return self._open(is_suspect=True)

    def _copied(self, error: sqlite3.Error) -> sqlite3.Connection:
        """Copy the readable part of the file into memory and return that database."""
        memory = self._in_memory(error)
        with contextlib.suppress(sqlite3.Error):  # unreadable rows are measured again
            if self._connection.in_transaction:
                self._connection.rollback()
            self._connection.execute("PRAGMA busy_timeout=0")
            self._connection.backup(memory, progress=_at_once)
        self._connection.close()
        return memory

    def _in_memory(self, error: Exception) -> sqlite3.Connection:
        self.is_kept, self._file = False, None
        _LOG.warning(
            "cannot keep measurements in %s: %s; they last for this process only. "
            "Free it, or name another file (--cache)",
            self.path,
            error,
        )
        return connect(":memory:")


def _at_once(status: int, _remaining: int, _total: int) -> None:
    """Abort a copy that has to wait: ``sqlite3`` would wait for a locked file without limit."""
    if status != _SQLITE_DONE:
        raise sqlite3.OperationalError("the file is locked")


def _identity(path: Path) -> tuple[int, int] | None:
    """Device and inode of a file; None if there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino
