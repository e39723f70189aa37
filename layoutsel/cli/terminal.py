"""Where the command line writes: results to standard output, everything else to standard error."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from typing import Any, TextIO

from rich.console import Console
from rich.text import Text

_PIPED_WIDTH = 200
"""Columns of a table that goes to a file or pipe, unless COLUMNS says otherwise."""

_STYLES = {"error": "bold red", "warning": "yellow"}

_ALLOCATOR = ("PooledAllocator got", "Trying to release all unused memory")
"""In the lines that TVM's allocator writes when a device has no room."""

_results: list[TextIO] = []


@contextlib.contextmanager
def reserved_stdout() -> Iterator[None]:
    """Keep standard output for results: what libraries and native code print on it goes to standard error."""
    sys.stdout.flush()
    kept = os.dup(1)
    with os.fdopen(kept, "w", encoding="utf-8", errors="replace") as stream:
        os.dup2(2, 1)
        _results.append(stream)
        stdout.cache_clear()
        stderr.cache_clear()
        try:
            yield
        finally:
            sys.stdout.flush()
            _results.pop()
            os.dup2(kept, 1)


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
    """Write results: rich renderables or text with markup, one below the other."""
    for part in what:
        stdout().print(part)


def show_text(text: str) -> None:
    """Write a line of the results as it is."""
    print(text, file=results(), flush=True)


def show_json(value: Any) -> None:
    """Write results for machines."""
    import json

    show_text(json.dumps(value, indent=1, allow_nan=False))


def note(kind: str, message: str) -> None:
    """Write one line to standard error, such as a warning."""
    line = Text("layoutsel: ").append(kind, _STYLES.get(kind, "")).append(": ")
    stderr().print(line.append(" ".join(message.split())), soft_wrap=True)


def error(message: str) -> None:
    """Write the one line that an error is."""
    note("error", message)
