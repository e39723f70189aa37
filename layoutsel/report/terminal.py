"""Output of the command line: results on standard output, all else on standard error."""

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
"""Width of a table in a file or pipe, columns; COLUMNS overrides it."""

_STYLES = {"error": "bold red", "warning": "yellow"}
"""Colours by kind of note."""

_FILTER_LIMIT_S = 5.0
"""Longest wait for the filter of standard error to end, seconds."""

_ALLOCATOR = ("PooledAllocator got", "Trying to release all unused memory")
"""Parts of the lines that TVM's allocator writes when a device is out of memory."""

_results: list[TextIO] = []
"""Streams of results, the current one last; empty while standard output is not reserved."""


class OutputError(LayoutselError):
    """Standard output is full or closed."""

    def __init__(self, error: OSError) -> None:
        super().__init__(
            f"cannot write to standard output: {error.strerror}; redirect it to a file with room, "
            f"or to {os.devnull}"
        )


@contextlib.contextmanager
def reserved_stdout() -> Iterator[None]:
    """Reserve standard output for results, and send the output of libraries to standard error."""
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
        # `flush` has reported any text that could not be written.
        with contextlib.suppress(OSError):
            sys.stdout.flush()
        _results.pop()
        os.dup2(kept, 1)
        with contextlib.suppress(OSError):
            stream.close()


@contextlib.contextmanager
def quiet_allocator(*, with_devices: bool) -> Iterator[None]:
    """Remove lines of TVM's allocator about a full device, as a clearer error follows.

    Native code writes to standard error directly. A separate process filters it, so that nothing
    is lost if this process crashes.
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
    """Stream of the results."""
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
    """Write renderables or text with markup to the results; raises as :func:`flush` does."""
    with _reported():
        for part in what:
            stdout().print(part)


def show_text(text: str) -> None:
    """Write a line to the results without markup; raises as :func:`flush` does."""
    with _reported():
        print(text, file=results(), flush=True)


def flush() -> None:
    """Flush the results.

    Raises
    ------
    OutputError
        If standard output is full or closed.
    BrokenPipeError
        If the reader has ended.
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
    """Open closed standard streams on the null device, as the next opened file would replace them.

    Raises
    ------
    OutputError
        If standard output is closed: results would be lost.
    """
    is_closed = sys.stdout is None
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            # The lowest free descriptor is that of the closed stream.
            stream = os.fdopen(os.open(os.devnull, os.O_RDWR), mode, closefd=False)
            setattr(sys, name, stream)
    if is_closed:
        raise OutputError(OSError(errno.EBADF, os.strerror(errno.EBADF)))


def give_up(descriptor: int) -> None:
    """Redirect a standard stream to nowhere, as the interpreter flushes the rest again at exit.

    Parameters
    ----------
    descriptor
        1 for standard output, 2 for standard error.
    """
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, descriptor)
    os.close(nothing)


def show_json(value: Any) -> None:
    """Write a result as JSON."""
    import json

    show_text(json.dumps(value, indent=1, allow_nan=False))


def note(kind: str, message: str) -> None:
    """Write one line to standard error, of a kind such as ``warning``."""
    line = Text("layoutsel: ").append(kind, _STYLES.get(kind, "")).append(": ")
    # If standard error is full, the exit code alone reports the failure.
    try:
        stderr().print(line.append(" ".join(message.split())), soft_wrap=True)
    except OSError:
        give_up(2)


def error(message: str) -> None:
    """Write an error in one line to standard error."""
    note("error", message)
