"""Probes: measured once in a process of their own, read from the user's cache folder afterwards."""

from __future__ import annotations

import json
import logging
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

T = TypeVar("T")


def ask(code: str, what: str, environment: Mapping[str, str]) -> Any:
    """Run `code` in a new process, and read the last line that it prints as JSON.

    Raises
    ------
    LayoutselError
        If the process fails; `what` says what could not be measured.
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
    """The line of a trace that names the error; what a compiler says of it may follow."""
    lines = printed.strip().splitlines() or ["the process ended"]
    return next((line for line in reversed(lines) if _ERROR.match(line)), lines[-1])


def kept(type_: type[T], name: str, folder: Path | None = None) -> T | None:
    """Read what :func:`remembered` has under `name`; None if there is nothing, or nothing that can be read."""
    file = _file(name, folder)
    if not file.exists():
        return None
    try:
        return from_json(type_, load_json(file), file=str(file))
    except LayoutselError as error:
        _LOG.warning("measuring the machine again: %s", error)
        return None


def _always(_value: object, _age_s: float) -> bool:
    return True


def remembered(
    type_: type[T],
    name: str,
    measure: Callable[[], T],
    folder: Path | None = None,
    is_current: Callable[[T, float], bool] = _always,
) -> T:
    """Answer of `measure`: asked the first time, read from `folder` afterwards.

    `is_current` tells from a kept answer and its age in seconds whether it still holds.
    """
    found, file = kept(type_, name, folder), _file(name, folder)
    if found is not None and is_current(found, time.time() - file.stat().st_mtime):
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
