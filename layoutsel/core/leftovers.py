"""Temporary files named after their writer, so that files of killed processes can be removed.

A process number is valid only on one machine, since its start, in one PID namespace. The name
therefore holds a digest of these three. Files of other machines and containers that share a folder
are kept.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
from contextlib import suppress
from pathlib import Path

_NAME = re.compile(r"\.layoutsel-([0-9a-f]{8})-([0-9]{1,7})-([0-9]{1,19})-[0-9a-f]{16}\.tmp")
"""Groups: digest of the machine, process number and start time of the writer; a random number."""
_BOOT = Path("/proc/sys/kernel/random/boot_id")
"""Random id of the machine's current start."""
_NAMESPACE = Path("/proc/self/ns/pid")
"""Link that names the PID namespace of this process."""
_START = 19
"""Index of the start time among the fields of ``/proc/PID/stat`` that follow the program's name."""


def temporary_name() -> str:
    """Make a new name for a temporary file of this process."""
    pid = os.getpid()
    return f".layoutsel-{_world() or '0' * 8}-{pid}-{_started(pid) or 0}-{secrets.token_hex(8)}.tmp"


def remove_leftovers(folder: Path) -> None:
    """Remove temporary files in `folder` whose writers have ended; ignore removal errors."""
    world = _world()
    if world is None:
        return
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            name = _NAME.fullmatch(entry.name)
            if name is None or name[1] != world or not _is_gone(int(name[2]), int(name[3])):
                continue
            with suppress(OSError):
                Path(entry.path).unlink()


def _world() -> str | None:
    """Digest of the machine's start and the PID namespace; None if the system does not tell."""
    try:
        text = f"{_BOOT.read_text().strip()} {_NAMESPACE.readlink()}"
    except OSError:
        return None
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def _is_gone(pid: int, started: int) -> bool:
    """True if no process `pid` with this start time exists; False in doubt."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    now = _started(pid)
    return now is not None and now != started


def _started(pid: int) -> int | None:
    """Start time of a process, in clock ticks since the machine's start; None if unknown."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
        return int(text.rpartition(")")[2].split()[_START])
    except (OSError, ValueError, IndexError):
        return None
