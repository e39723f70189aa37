"""Memory limits of child processes."""

from __future__ import annotations

import contextlib
import os
import resource

_SHARE = 0.75
"""Share of the machine's memory that one child process may take if nothing else is said."""


def most_bytes() -> int:
    """Largest memory of a child process for which no limit is known, bytes."""
    return int(_SHARE * os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))


def limit_memory(process: int, nbytes: int) -> None:
    """Limit the data of a running child process; larger requests fail in it.

    A lower limit that it has stays, and it may not raise the limit that this process has.
    """
    with contextlib.suppress(ProcessLookupError, PermissionError):
        soft, most = resource.prlimit(process, resource.RLIMIT_DATA)
        known = [limit for limit in (soft, nbytes) if limit != resource.RLIM_INFINITY]
        resource.prlimit(process, resource.RLIMIT_DATA, (min(known), most))
