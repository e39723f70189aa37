"""Atomic file writes: a file appears complete or not at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import BinaryIO

from layoutsel.core.leftovers import remove_leftovers, temporary_name
from tvm_passes.errors import LayoutselError


class WriteError(LayoutselError):
    """A file cannot be written."""


@contextmanager
def replacing(path: Path | str, *, executable: bool = False) -> Iterator[BinaryIO]:
    """Open a temporary file that replaces `path` if the block ends without an error.

    After an error, `path` stays as it was. The stream's attribute ``name`` is the temporary name,
    for child processes to write to. A symbolic link is followed, and its target is replaced.
    Temporary files that killed processes left in the target's folder are removed.

    Parameters
    ----------
    path
        File to create or replace.
    executable
        True to set the execute permission; the umask of the process still applies.

    Yields
    ------
    BinaryIO
        The temporary file, open for reading and writing.

    Raises
    ------
    WriteError
        If the file cannot be written completely.
    """
    wanted = Path(path)
    check_output(wanted)
    target = Path(os.path.realpath(wanted))
    remove_leftovers(target.parent)
    temporary = target.with_name(temporary_name())
    # The kernel applies the umask to this mode. Reading the umask would change it in all threads.
    opener = partial(os.open, mode=0o777 if executable else 0o666)
    try:
        with open(temporary, "x+b", opener=opener) as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(target)
    except OSError as error:
        raise _cannot_write(wanted, error.strerror or str(error)) from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def write_text(path: Path | str, text: str) -> None:
    """Write a text file atomically; raises :class:`WriteError` if it cannot be written."""
    with replacing(path) as stream:
        # File names that are not valid text appear in messages: escape them.
        stream.write(text.encode(errors="backslashreplace"))


def check_output(path: Path | None, least_bytes: int = 1) -> None:
    """Check before long work that its result can be written.

    Parameters
    ----------
    path
        Output file; None means no output, and passes.
    least_bytes
        Free space that the file needs, bytes.

    Raises
    ------
    WriteError
        If the folder is missing, read-only or full, or `path` is not a regular file.
    """
    if path is None:
        return
    folder = path.parent
    try:
        if path.is_dir():
            problem = "it is a directory"
        elif not folder.is_dir():
            problem = f"there is no directory {folder}"
        elif not os.access(folder, os.W_OK):
            problem = f"the directory {folder} is not writable"
        elif path.exists() and not path.is_file():
            problem = "it is a device or a pipe, and a file cannot take its place"
        else:
            _reserve(folder, least_bytes)
            return
    except (OSError, ValueError) as error:
        problem = getattr(error, "strerror", None) or str(error)
    raise _cannot_write(path, problem)


def make_folder(folder: Path) -> None:
    """Make a folder and those above it, before long work writes to it.

    Raises
    ------
    WriteError
        If it cannot be made, or something else has its name.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = "it is not a directory" if folder.exists() else error.strerror or str(error)
        raise _cannot_write(folder, reason) from error


def _reserve(folder: Path, count: int) -> None:
    """Allocate `count` bytes in `folder` and free them again."""
    with tempfile.TemporaryFile(dir=folder, prefix=".layoutsel-", buffering=0) as stream:
        os.posix_fallocate(stream.fileno(), 0, count)


def _cannot_write(path: Path, problem: str) -> WriteError:
    return WriteError(f"cannot write {path}: {problem}; make room, or choose another place")
