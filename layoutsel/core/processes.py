"""Child processes with a limit of time, which their own children do not outlive."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from tvm_passes.errors import LayoutselError

_ERROR = re.compile(r"error|fatal|failed|cannot", re.IGNORECASE)
_LAST_WORDS_S = 5.0
"""How long to wait for a killed process to close its pipes."""


class ProcessError(LayoutselError):
    """A child process that failed, could not be started or took too long; says what it was for."""

    def __init__(self, what: str, problem: str, printed: str = "") -> None:
        super().__init__(f"{what}: {problem}")
        self.printed = printed
        """Everything that it wrote."""


def run_limited(
    command: Sequence[str | Path],
    *,
    what: str,
    limit_s: float,
    environment: Mapping[str, str] | None = None,
) -> str:
    """Run `command` without input, and return what it writes to standard output.

    Parameters
    ----------
    what
        What fails if it does, such as ``cannot link``.
    limit_s
        Seconds after which it is killed with all that it started.
    environment
        Variables in addition to those of this process.

    Raises
    ------
    ProcessError
        If it cannot be started, fails or takes too long.
    """
    try:
        process = subprocess.Popen(
            [os.fspath(part) for part in command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, **(environment or {})},
            start_new_session=True,
        )
    except OSError as error:
        raise ProcessError(what, f"{command[0]} cannot be started ({error.strerror})") from error
    try:
        out, err = process.communicate(timeout=limit_s)
    except subprocess.TimeoutExpired:
        problem = f"{command[0]} took more than {limit_s:g} s and was ended"
        raise ProcessError(what, problem) from None
    finally:
        _end(process)
    printed = err.decode(errors="replace")
    if process.returncode:
        raise ProcessError(what, _reason(process.returncode, printed), printed)
    return out.decode(errors="replace")


def _end(process: subprocess.Popen[bytes]) -> None:
    """Kill what is left of a process and of those that it started."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(_LAST_WORDS_S)
    for pipe in (process.stdout, process.stderr):
        if pipe is not None:
            pipe.close()


def _reason(code: int, printed: str) -> str:
    """Say how a process failed: the first line that names an error, else the last that it wrote."""
    lines = [line.strip() for line in printed.splitlines() if line.strip()]
    named = next((line for line in lines if _ERROR.search(line)), None)
    how = f"exit code {code}" if code >= 0 else f"killed by {signal.Signals(-code).name}"
    return (named or (lines or [how])[-1])[:300]
