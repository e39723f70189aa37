"""Memory limits of child processes."""

from __future__ import annotations

import contextlib
import os
import resource
from pathlib import Path

_SHARE = 0.75
"""Share of the memory that one child process may take if it has no limit of its own."""


_CONTAINER = tuple(
    Path("/sys/fs/cgroup") / name for name in ("memory.max", "memory/memory.limit_in_bytes")
)
"""Files with the memory limit of a container, of both versions of control groups."""


def memory_bytes() -> int:
    """Return the memory of this machine, or of the container if it has less, bytes."""
    known = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    for file in _CONTAINER:
        # The file may be missing, or hold "max" for no limit.
        with contextlib.suppress(OSError, ValueError):
            known.append(int(file.read_text()))
    return min(known)


def most_bytes() -> int:
    """Return the memory that a child process may take if it has no limit of its own, bytes."""
    return int(_SHARE * memory_bytes())


def limit_memory(process: int, nbytes: int) -> None:
    """Limit the data of a running child process; larger requests fail in it.

    A lower limit that it has stays, and it may not raise the limit that this process has.
    """
    with contextlib.suppress(ProcessLookupError, PermissionError):
        soft, most = resource.prlimit(process, resource.RLIMIT_DATA)
        known = [limit for limit in (soft, nbytes) if limit != resource.RLIM_INFINITY]
        resource.prlimit(process, resource.RLIMIT_DATA, (min(known), most))
