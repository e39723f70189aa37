"""Where the command line writes: results to standard output, everything else to standard error."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from typing import Any, TextIO

from rich.console import Console
from rich.text import Text

from tvm_passes.errors import LayoutselError

_PIPED_WIDTH = 200
"""Columns of a table that goes to a file or pipe, unless COLUMNS says otherwise."""

_STYLES = {"error": "bold red", "warning": "yellow"}

_FILTER_LIMIT_S = 5.0
"""How long a filter may write on when there is nothing more to come."""

_ALLOCATOR = ("PooledAllocator got", "Trying to release all unused memory")
"""In the lines that TVM's allocator writes when a device has no room."""

_results: list[TextIO] = []


class OutputError(LayoutselError):
    """Standard output that has no room, or is closed."""

    def __init__(self, error: OSError) -> None:
        super().__init__(
            f"cannot write to standard output: {error.strerror}; redirect it to a file with room, or to {os.devnull}"
        )


@contextlib.contextmanager
def reserved_stdout() -> Iterator[None]:
    """Keep standard output for results: what libraries and native code print on it goes to standard error."""
    sys.stdout.flush()
    kept = os.dup(1)
    stream = os.fdopen(kept, "w", encoding="utf-8", errors="replace")
    os.dup2(2, 1)
    _results.append(stream)
    stdout.cache_clear()
    stderr.cache_clear()
    try:
        yield
    finally:
        # Text that did not reach its place was reported when it was written: `flush` raises.
        with contextlib.suppress(OSError):
            sys.stdout.flush()
        _results.pop()
        os.dup2(kept, 1)
        with contextlib.suppress(OSError):
            stream.close()


@contextlib.contextmanager
def quiet_allocator(*, with_devices: bool) -> Iterator[None]:
    """Leave out what TVM's allocator says of a device's lack of memory: the error that follows says it better.

    Native code writes on standard error by itself; a process that filters it loses nothing where this one crashes.
    """
    grep = shutil.which("grep")
    if grep is None or not with_devices:
        yield
        return
    command = [grep, "--line-buffered", "-v", *(f"--regexp={words}" for words in _ALLOCATOR)]
    kept = os.dup(2)
    with (
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=2, start_new_session=True) as lines,
        os.fdopen(kept, "w", encoding="utf-8", errors="replace") as stream,
        contextlib.redirect_stderr(stream if sys.stderr is sys.__stderr__ else sys.stderr),
    ):
        assert lines.stdin is not None
        os.dup2(lines.stdin.fileno(), 2)
        stderr.cache_clear()
        try:
            yield
        finally:
            os.dup2(kept, 2)
            stderr.cache_clear()
            lines.stdin.close()
            try:
                lines.wait(_FILTER_LIMIT_S)
            except subprocess.TimeoutExpired:
                lines.kill()


def results() -> TextIO:
    """The stream that results go to."""
    return _results[-1] if _results else sys.stdout


@cache
def stdout() -> Console:
    """Console of the results."""
    return _console(results())


@cache
def stderr() -> Console:
    """Console of progress, warnings and errors."""
    return _console(sys.stderr)


def _console(stream: TextIO) -> Console:
    is_wide = not stream.isatty() and "COLUMNS" not in os.environ
    return Console(file=stream, width=_PIPED_WIDTH if is_wide else None, highlight=False)


def show(*what: Any) -> None:
    """Write results: rich renderables or text with markup, one below the other; errors as of :func:`flush`."""
    with _reported():
        for part in what:
            stdout().print(part)


def show_text(text: str) -> None:
    """Write a line of the results as it is; errors as of :func:`flush`."""
    with _reported():
        print(text, file=results(), flush=True)


def flush() -> None:
    """Hand over what was written to the results.

    Raises
    ------
    OutputError
        If standard output has no room, or is closed.
    BrokenPipeError
        If nobody reads it any more.
    """
    with _reported():
        results().flush()


@contextlib.contextmanager
def _reported() -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise OutputError(error) from error


def open_standard_streams() -> None:
    """Put nothing in the place of standard streams that are closed: a file that is opened later would become one.

    Raises
    ------
    OutputError
        If standard output is one of them: there is no place for results.
    """
    is_closed = sys.stdout is None
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            # The lowest free descriptor, which is the stream's own.
            stream = os.fdopen(os.open(os.devnull, os.O_RDWR), mode, closefd=False)
            setattr(sys, name, stream)
    if is_closed:
        raise OutputError(OSError(errno.EBADF, os.strerror(errno.EBADF)))


def give_up_stdout() -> None:
    """Drop what standard output has no room for, so that the interpreter does not try again while it ends."""
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 1)
    os.close(nothing)


def show_json(value: Any) -> None:
    """Write results for machines."""
    import json

    show_text(json.dumps(value, indent=1, allow_nan=False))


def note(kind: str, message: str) -> None:
    """Write one line to standard error, such as a warning."""
    line = Text("layoutsel: ").append(kind, _STYLES.get(kind, "")).append(": ")
    # Where standard error has no room, the exit code alone tells.
    with contextlib.suppress(OSError):
        stderr().print(line.append(" ".join(message.split())), soft_wrap=True)


def error(message: str) -> None:
    """Write the one line that an error is."""
    note("error", message)
