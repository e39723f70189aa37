"""Wrapper of every command: errors in one line with an exit code, results on standard output."""

from __future__ import annotations

import contextlib
import functools
import logging
import traceback
from collections.abc import Callable, Iterator
from typing import Any

import typer

from layoutsel.core.exit_codes import INTERNAL_ERROR, INTERRUPTED, USER_ERROR, place_error
from layoutsel.report import terminal
from tvm_passes.errors import LayoutselError

DEBUG_FLAG = "--debug"
"""Option that shows tracebacks."""

_debug: list[bool] = [False]
"""True as the only element if tracebacks are shown."""


def set_debug(on: bool) -> None:
    """Switch the tracebacks of errors on or off."""
    _debug[0] = on


def guarded(command: Callable[..., None]) -> Callable[..., None]:
    """Wrap `command` so that errors become one line, without a traceback unless requested."""

    @functools.wraps(command)
    def wrapped(*arguments: Any, **options: Any) -> None:
        with terminal.reserved_stdout(), _logging_to_stderr():
            try:
                command(*arguments, **options)
                terminal.flush()
            except (typer.Exit, typer.Abort):
                raise
            except LayoutselError as error:
                _fail(str(error), USER_ERROR)
            except KeyboardInterrupt as error:
                _fail(str(error) or "interrupted", INTERRUPTED)
            except BrokenPipeError:
                raise typer.Exit(INTERNAL_ERROR) from None
            except OSError as error:
                told = place_error(error)
                _fail(told or _unexpected(error), USER_ERROR if told else INTERNAL_ERROR)
            except MemoryError as error:
                needed = f" ({_shortened(str(error))})" if str(error) else ""
                _fail(
                    f"out of memory{needed}; give the process more memory, or choose a smaller "
                    f"model",
                    USER_ERROR,
                )
            except Exception as error:
                _fail(_unexpected(error), INTERNAL_ERROR)

    return wrapped


def _unexpected(error: Exception) -> str:
    hint = "" if _debug[0] else f" ({DEBUG_FLAG} shows the traceback)"
    what = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    return f"unexpected {_shortened(what)}{hint}"


def _fail(message: str, code: int) -> None:
    if _debug[0] and code != INTERRUPTED:
        traceback.print_exc()
    terminal.error(message)
    raise typer.Exit(code) from None


def _shortened(text: str, most: int = 300) -> str:
    text = " ".join(text.split())
    return text if len(text) <= most else f"{text[: most - 3]}..."


class _Lines(logging.Handler):
    """Log handler that writes the library's warnings as lines to standard error, equal ones once.

    A command that plans many models would repeat the same warning about the machine for each.
    """

    def __init__(self, level: int) -> None:
        super().__init__(level)
        self._shown: set[tuple[str, str]] = set()

    def emit(self, record: logging.LogRecord) -> None:
        line = record.levelname.lower(), record.getMessage()
        if line not in self._shown:
            self._shown.add(line)
            terminal.note(*line)


@contextlib.contextmanager
def _logging_to_stderr() -> Iterator[None]:
    loggers = [logging.getLogger(name) for name in ("layoutsel", "tvm_passes")]
    handler = _Lines(logging.DEBUG if _debug[0] else logging.WARNING)
    for logger in loggers:
        logger.addHandler(handler)
        logger.propagate = False
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeHandler(handler)
            logger.propagate = True
