"""Child processes with a time limit that also ends their own children."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from layoutsel.core.memory_limits import limit_memory
from tvm_passes.errors import LayoutselError

_ERROR = re.compile(r"error|fatal|failed|cannot", re.IGNORECASE)
"""Words that mark the line of an output which names the error."""
MEMORY_BYTES = 8 << 30
"""Default memory limit of a process; linkers of large models take the most."""
_LAST_WORDS_S = 5.0
"""Longest wait for a killed process to end, seconds."""


class ProcessError(LayoutselError):
    """A child process failed, could not be started or took too long.

    Parameters
    ----------
    what
        Failed purpose of the process, such as ``cannot link``.
    problem
        Reason of the failure.
    printed
        Standard error of the process.
    """

    def __init__(self, what: str, problem: str, printed: str = "") -> None:
        super().__init__(f"{what}: {problem}")
        self.printed = printed
        """Standard error of the process."""


def run_limited(
    command: Sequence[str | Path],
    *,
    what: str,
    limit_s: float,
    memory_bytes: int = MEMORY_BYTES,
    environment: Mapping[str, str | None] | None = None,
) -> str:
    """Run `command` without input and return its standard output.

    Parameters
    ----------
    command
        Program and its arguments.
    what
        Start of the error message, such as ``cannot link``.
    limit_s
        Time limit, seconds; then the process and all its children are killed.
    memory_bytes
        Memory limit of the process, and of each of its children.
    environment
        Variables to set in addition to those of this process; None to leave one of these out.

    Raises
    ------
    ProcessError
        If it cannot be started, fails or takes too long.
    """
    variables = {**os.environ, **(environment or {})}
    try:
        process = subprocess.Popen(
            [os.fspath(part) for part in command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={name: value for name, value in variables.items() if value is not None},
            start_new_session=True,
        )
    except OSError as error:
        raise ProcessError(what, f"{command[0]} cannot be started ({error.strerror})") from error
    limit_memory(process.pid, memory_bytes)
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
    """Kill the remaining processes of the group and close the pipes."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(_LAST_WORDS_S)
    for pipe in (process.stdout, process.stderr):
        if pipe is not None:
            pipe.close()


def _reason(code: int, printed: str) -> str:
    """Reason of a failure: first line that names an error, last line, or exit code."""
    lines = [line.strip() for line in printed.splitlines() if line.strip()]
    named = next((line for line in lines if _ERROR.search(line)), None)
    how = f"exit code {code}" if code >= 0 else f"killed by {signal.Signals(-code).name}"
    return (named or (lines or [how])[-1])[:300]
