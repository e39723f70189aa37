"""Names of temporary files that tell who writes them, so that those of killed processes can be removed.

Process numbers mean the same only on one machine, since it was started, in one namespace: a name holds a digest of these.
Files of other machines and containers, which may share a folder, are left alone.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
from contextlib import suppress
from pathlib import Path

_NAME = re.compile(r"\.layoutsel-([0-9a-f]{8})-([0-9]{1,7})-([0-9]{1,19})-[0-9a-f]{16}\.tmp")
"""World, process number and start of the writer, and a random number."""
_BOOT = Path("/proc/sys/kernel/random/boot_id")
_NAMESPACE = Path("/proc/self/ns/pid")
_START = 19
"""Place of the start among the fields of ``/proc/PID/stat`` that follow the program's name."""


def temporary_name() -> str:
    """A new name for a file that this process writes."""
    pid = os.getpid()
    return f".layoutsel-{_world() or '0' * 8}-{pid}-{_started(pid) or 0}-{secrets.token_hex(8)}.tmp"


def remove_leftovers(folder: Path) -> None:
    """Remove the temporary files in `folder` whose writers no longer exist; those that cannot be removed stay."""
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
    """Digest of all that process numbers depend on; None if the system does not tell."""
    try:
        text = f"{_BOOT.read_text().strip()} {_NAMESPACE.readlink()}"
    except OSError:
        return None
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def _is_gone(pid: int, started: int) -> bool:
    """True if no process `pid` exists that started then; False in doubt."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    now = _started(pid)
    return now is not None and now != started


def _started(pid: int) -> int | None:
    """Start of a process, in ticks since the machine's; None if the system does not tell."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
        return int(text.rpartition(")")[2].split()[_START])
    except (OSError, ValueError, IndexError):
        return None
