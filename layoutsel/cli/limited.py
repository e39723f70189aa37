"""Limits of time and memory of a command that works in this process."""

from __future__ import annotations

import os
import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Annotated

import typer

from layoutsel.cli.options import parse_seconds
from layoutsel.core.memory_limits import limit_memory, most_bytes
from tvm_passes.errors import LayoutselError

TIME_LIMIT = "240m"
"""Default time limit of a command."""
CommandLimitOption = Annotated[
    str,
    typer.Option("--time-limit", metavar="TIME", help="Time limit of the command, such as 30m."),
]


class _TimeIsUp(BaseException):
    """End of the time; no handler of ordinary errors may take it for one."""


@contextmanager
def limited(time_limit: str) -> Iterator[None]:
    """Limit time and memory of this process within the context.

    Native code is not interrupted: the time limit takes effect after its return.

    Parameters
    ----------
    time_limit
        Value of the command's option, such as ``30m``.

    Raises
    ------
    LayoutselError
        If the time limit is reached.
    """
    limit_s = parse_seconds(time_limit)
    if not limit_s > 0:
        raise LayoutselError(f"--time-limit {time_limit}: expected a time above 0")

    def end(_number: int, _frame: FrameType | None) -> None:
        raise _TimeIsUp

    memory = resource.getrlimit(resource.RLIMIT_DATA)
    limit_memory(os.getpid(), most_bytes())
    before = signal.signal(signal.SIGALRM, end)
    timer = signal.getitimer(signal.ITIMER_REAL)
    try:
        try:
            signal.setitimer(signal.ITIMER_REAL, limit_s)
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, *timer)  # a caller's own timer goes on
    except _TimeIsUp:
        raise LayoutselError(
            f"the command took more than {limit_s:g} s and was ended: give it less data, or a "
            "longer --time-limit"
        ) from None
    finally:
        signal.signal(signal.SIGALRM, before)
        resource.setrlimit(resource.RLIMIT_DATA, memory)
