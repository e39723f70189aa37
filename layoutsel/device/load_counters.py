"""The kernel's counters of processor time: of each core, of this process, and of waiting tasks."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")
"""Where Linux shows its counters."""
_IDLE = slice(3, 5)
"""Fields of a core in ``/proc/stat`` that count as idle: idle, and idle while a disk works."""
_COUNTED = 8
"""Fields of a core in ``/proc/stat`` that add up to the time; later ones are parts of them."""
_STATE, _USER, _SYSTEM, _CORE = 0, 11, 12, 36
"""Fields of a thread's ``stat`` after its name: state, user and system time, last core."""


@dataclass(frozen=True, kw_only=True)
class ThreadTime:
    """Processor time of one thread of this process."""

    used_s: float
    """Processor time since its start, seconds."""
    core: int
    """Core on which it ran last."""


@dataclass(frozen=True, kw_only=True)
class Counters:
    """Counters at one moment; only differences between two moments have a meaning."""

    time_s: float
    """Monotonic time, seconds."""
    busy_s: Mapping[int, float]
    """Time that each core was busy, by core number, seconds."""
    threads: Mapping[int, ThreadTime]
    """Threads of this process by their numbers."""
    others: int
    """Runnable tasks of other processes at this moment."""
    waited_s: float | None
    """Time in which at least one task waited for a core, seconds; None if it is not readable."""

    def own_s(self, before: Counters) -> dict[int, float]:
        """Processor time of this process since `before`, by core number, seconds."""
        found = dict.fromkeys(self.busy_s, 0.0)
        for number, thread in self.threads.items():
            known = before.threads.get(number)
            used_s = thread.used_s - (known.used_s if known else 0.0)
            found[thread.core] = found.get(thread.core, 0.0) + max(used_s, 0.0)
        return found


def read_counters(cores: Sequence[int], proc: Path = PROC) -> Counters:
    """Read the counters.

    Parameters
    ----------
    cores
        Core numbers.
    proc
        Folder of the counters.

    Raises
    ------
    OSError, ValueError, IndexError, KeyError
        If the counters are not readable, or do not look like Linux's.
    """
    now_s = time.monotonic()
    lines = (proc / "stat").read_text(encoding="ascii").splitlines()
    fields = {name: rest for name, *rest in map(str.split, lines) if rest}
    ticks = os.sysconf("SC_CLK_TCK")
    busy_s = {}
    for core in cores:
        times = list(map(int, fields[f"cpu{core}"]))[:_COUNTED]
        busy_s[core] = (sum(times) - sum(times[_IDLE])) / ticks
    threads, running = {}, 0
    for folder in (proc / "self" / "task").iterdir():
        try:
            text = (folder / "stat").read_text(encoding="utf-8", errors="replace")
        except (FileNotFoundError, ProcessLookupError):
            continue  # the thread has ended
        of_thread = text.rpartition(")")[2].split()
        used_s = (int(of_thread[_USER]) + int(of_thread[_SYSTEM])) / ticks
        threads[int(folder.name)] = ThreadTime(used_s=used_s, core=int(of_thread[_CORE]))
        running += of_thread[_STATE] == "R"
    return Counters(
        time_s=now_s,
        busy_s=busy_s,
        threads=threads,
        others=max(int(fields["procs_running"][0]) - running, 0),
        waited_s=_waited_s(proc),
    )


def _waited_s(proc: Path) -> float | None:
    """Read the kernel's pressure of waiting tasks; many kernels and containers lack it."""
    try:
        first = (proc / "pressure" / "cpu").read_text(encoding="ascii").split()
        return next(float(word[6:]) * 1e-6 for word in first if word.startswith("total="))
    except (OSError, ValueError, StopIteration):
        return None
