"""Files that appear whole or not at all."""

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
    """A file that cannot be written."""


@contextmanager
def replacing(path: Path | str, *, executable: bool = False) -> Iterator[BinaryIO]:
    """Open a file that becomes `path` when the block ends well; else `path` stays as it was.

    Its temporary name, for child processes to write to, is its attribute ``name``. A link is followed: the file that it
    leads to is replaced. Temporary files that killed processes left in its folder are removed.

    Parameters
    ----------
    executable
        If True, the file may be run; all other permissions are those that the process gives new files.

    Raises
    ------
    WriteError
        If the file cannot be written whole.
    """
    wanted = Path(path)
    check_output(wanted)
    target = Path(os.path.realpath(wanted))
    remove_leftovers(target.parent)
    temporary = target.with_name(temporary_name())
    # The kernel takes the umask from this mode. To read the mask is to change it, in all threads.
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
    """Write a text file whole or not at all; raises :class:`WriteError` if it cannot be written."""
    with replacing(path) as stream:
        stream.write(text.encode(errors="backslashreplace"))  # file names that are no text


def check_output(path: Path | None, least_bytes: int = 1) -> None:
    """Find out before the work whether its result can be written.

    Parameters
    ----------
    least_bytes
        What there has to be room for.

    Raises
    ------
    WriteError
        Says what is in the way.
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


def _reserve(folder: Path, count: int) -> None:
    """Take up so many bytes in `folder`, and give them back."""
    with tempfile.TemporaryFile(dir=folder, prefix=".layoutsel-", buffering=0) as stream:
        os.posix_fallocate(stream.fileno(), 0, count)


def _cannot_write(path: Path, problem: str) -> WriteError:
    return WriteError(f"cannot write {path}: {problem}; make room, or choose another place")
