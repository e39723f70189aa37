"""Limits on the memory of emulated nodes: control groups, in which pages of files count as well."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path("/sys/fs/cgroup/memory")
"""Control groups (version 1) of memories."""
ENTER = 'echo 0 > "$0/cgroup.procs" && exec "$@"'
"""Script that runs its arguments in the control group that it is named after."""


def why_not() -> str | None:
    """Reason why memories cannot be limited here; None if they can."""
    try:
        MemoryGroup.limited(f"ls-try{os.getpid()}", 1 << 30).remove()
    except OSError as error:
        return f"no control groups (version 1) of memories: {error.strerror}"
    return None


PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
END_S = 20.0
"""Longest wait for the end of killed processes, seconds."""


@dataclass(frozen=True)
class MemoryGroup:
    """A control group with a limit on the memory of its processes."""

    folder: Path

    @classmethod
    def limited(cls, name: str, most_bytes: int) -> MemoryGroup:
        """A new group within that of this process."""
        made = cls(_own() / name)
        made.folder.mkdir()
        made.limit(most_bytes)
        return made

    def limit(self, most_bytes: int) -> None:
        """Change the limit, and begin with the largest memory from now on."""
        (self.folder / "memory.limit_in_bytes").write_text(str(most_bytes))
        (self.folder / "memory.max_usage_in_bytes").write_text("0")

    def command(self, arguments: Sequence[str]) -> list[str]:
        """Command line that runs a program in this group."""
        return ["sh", "-c", ENTER, str(self.folder), *arguments]

    def statistics(self) -> dict[str, int]:
        """Memory at present and at most, and new pages so far, bytes: empty or read from files."""
        known = dict(line.split() for line in self._read("memory.stat").splitlines())
        return {
            "limit_bytes": int(self._read("memory.limit_in_bytes")),
            "peak_bytes": int(self._read("memory.max_usage_in_bytes")),
            "own_bytes": int(known["total_rss"]),
            "mapped_bytes": int(known["total_mapped_file"]),
            "taken_bytes": int(known["total_pgpgin"]) * PAGE_BYTES,
        }

    def remove(self) -> None:
        """Remove the group; its processes have been killed, and need a moment to end."""
        end = time.monotonic() + END_S
        while True:
            try:
                return self.folder.rmdir()
            except OSError:
                if time.monotonic() > end:
                    raise
                time.sleep(0.05)

    def _read(self, name: str) -> str:
        return (self.folder / name).read_text()


def _own() -> Path:
    """Group of this process; that of the container if its own one cannot be seen."""
    lines = Path("/proc/self/cgroup").read_text().splitlines()
    named = {line.split(":")[1]: line.split(":")[2] for line in lines}
    own = ROOT / named.get("memory", "").lstrip("/")
    return own if own.is_dir() else ROOT
