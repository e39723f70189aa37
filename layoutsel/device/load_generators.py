"""Generators of load: child processes that occupy cores of this machine for a limited time."""

from __future__ import annotations

import os
import select
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from layoutsel.core.memory_limits import limit_memory
from layoutsel.device import load_process
from layoutsel.device.core_load import BusyProcess, CoreLoad, check_core
from tvm_passes.errors import LayoutselError

_MEMORY_BYTES = 1 << 30
"""Memory limit of a generator, bytes."""
_START_LIMIT_S = 20.0
"""Time limit of the start of a generator, seconds."""


@contextmanager
def generating(
    processes: Iterable[BusyProcess], *, limit_s: float, cores: Sequence[int] | None = None
) -> Iterator[CoreLoad]:
    """Occupy cores with child processes within the context.

    They end with the context, with this process however it ends, and after the time limit.

    Parameters
    ----------
    processes
        Processes to start.
    limit_s
        Time limit of each process, seconds.
    cores
        Core numbers that the processes' positions refer to; by default the cores that this thread
        may use.

    Yields
    ------
    CoreLoad
        Load that the processes make.

    Raises
    ------
    LayoutselError
        If a core does not exist, or a process cannot start.
    """
    numbers = sorted(os.sched_getaffinity(0) if cores is None else cores)
    asked = tuple(processes)
    for process in asked:
        check_core(process, numbers)
    with ExitStack() as running:
        children = [running.enter_context(_child(one, numbers[one.core], limit_s)) for one in asked]
        for one, child in zip(asked, children, strict=True):
            _await(one, child)
        yield CoreLoad.of(asked, len(numbers))


@contextmanager
def _child(process: BusyProcess, core: int, limit_s: float) -> Iterator[subprocess.Popen[bytes]]:
    """Start a generator; kill it at the end of the context."""
    arguments = (core, process.kind, process.duty, limit_s, os.getpid())
    # A session each: Linux may share a core between sessions before it shares it between processes.
    child = subprocess.Popen(
        [sys.executable, "-I", "-S", str(Path(load_process.__file__)), *map(str, arguments)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        limit_memory(child.pid, _MEMORY_BYTES)
        yield child
    finally:
        child.kill()
        child.communicate()


def _await(process: BusyProcess, child: subprocess.Popen[bytes]) -> None:
    """Wait until a generator runs on its core."""
    assert child.stdout is not None
    answered, _, _ = select.select([child.stdout], [], [], _START_LIMIT_S)
    if answered and child.stdout.readline().strip() == b"ready":
        return
    if answered:  # by the end of the process
        _, printed = child.communicate()
        why = (printed.decode(errors="replace").strip() or f"exit {child.returncode}").splitlines()[
            -1
        ]
    else:
        why = f"did not start within {_START_LIMIT_S:g} s"
    raise LayoutselError(f"load {process}: the process that makes it cannot start: {why}")
