"""Probes, run once in a separate process and then read from the user's cache folder."""

from __future__ import annotations

import json
import logging
import math
import os
import re
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import platformdirs

from layoutsel.core.processes import ProcessError, run_limited
from layoutsel.documents import from_json, load_json, save
from tvm_passes.errors import LayoutselError

_LOG = logging.getLogger(__name__)
_ERROR = re.compile(r"[\w.]*(Error|Exception): ")
_TIME_LIMIT_S = 60.0
"""Time limit of a probe's process, seconds."""

T = TypeVar("T")


def ask(code: str, what: str, environment: Mapping[str, str | None]) -> Any:
    """Run Python code in a new process, and parse the last printed line as JSON.

    Parameters
    ----------
    code
        Python source.
    what
        Subject of the measurement, for the error message.
    environment
        Additional environment variables of the process; None to leave one of this process's out.

    Raises
    ------
    LayoutselError
        If the process fails or prints no JSON.
    """
    path = os.pathsep.join(entry or str(Path.cwd()) for entry in sys.path)
    try:
        printed = run_limited(
            [sys.executable, "-c", code],
            what=f"cannot measure {what}",
            limit_s=_TIME_LIMIT_S,
            environment={**environment, "PYTHONPATH": path},
        )
        return json.loads(printed.splitlines()[-1])
    except ProcessError as error:
        if not error.printed:
            raise
        raise LayoutselError(f"cannot measure {what}: {_reason(error.printed)}") from error
    except (ValueError, IndexError) as error:
        raise LayoutselError(f"cannot measure {what}: {error}") from error


def _reason(printed: str) -> str:
    """Return the line of a stack trace that names the error; compiler output may follow it."""
    lines = printed.strip().splitlines() or ["the process ended"]
    return next((line for line in reversed(lines) if _ERROR.match(line)), lines[-1])


def kept(type_: type[T], name: str, folder: Path | None = None) -> T | None:
    """Read the stored value of `name`; None if there is none, or it cannot be read.

    Parameters
    ----------
    type_
        Expected type of the value.
    name
        Name of the value, without a suffix.
    folder
        Folder of stored values; by default the user's cache folder.
    """
    file = _file(name, folder)
    if not file.exists():
        return None
    try:
        return from_json(type_, load_json(file), file=str(file))
    except LayoutselError as error:
        _LOG.warning("measuring the machine again: %s", error)
        return None


def _age_s(file: Path) -> float:
    """Return the age of a file, seconds; infinite if another process has deleted it."""
    try:
        return time.time() - file.stat().st_mtime
    except FileNotFoundError:
        return math.inf


def _always(_value: object, _age_s: float) -> bool:
    return True


def remembered(
    type_: type[T],
    name: str,
    measure: Callable[[], T],
    folder: Path | None = None,
    is_current: Callable[[T, float], bool] = _always,
) -> T:
    """Return the stored value of `name`, or call `measure` and store its result.

    A value that cannot be stored is returned all the same, with a warning.

    Parameters
    ----------
    type_
        Expected type of the value.
    name
        Name of the value, without a suffix.
    measure
        Function that measures the value.
    folder
        Folder of stored values; by default the user's cache folder.
    is_current
        Function that decides from a stored value and its age in seconds if it still holds.
    """
    found, file = kept(type_, name, folder), _file(name, folder)
    if found is not None and is_current(found, _age_s(file)):
        return found
    found = measure()
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        save(found, file)
    except (OSError, LayoutselError) as error:
        _LOG.warning("cannot keep the machine's peaks: %s", error)
    return found


def _file(name: str, folder: Path | None) -> Path:
    return (folder or Path(platformdirs.user_cache_dir("layoutsel"))) / f"{name}.json"
