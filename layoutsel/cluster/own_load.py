"""Load of this machine by other processes, and its free memory."""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass

import psutil

from layoutsel.cluster.statistics import NodeState

_UNUSED = 0.05
"""Share of the processors below which this process did not compete for them."""
_FAIR = 0.5
"""Share of a processor that one task leaves to another: systems divide it equally."""
_NOT_BUSY = frozenset({"idle", "iowait", "guest", "guest_nice"})
"""Times that are not work, or that the system counts as work already."""


@dataclass(frozen=True)
class _Used:
    """Processor times so far, seconds."""

    total_s: float
    """All time of the processors."""
    busy_s: float
    """Work of all processes."""
    own_s: float
    """Work of this process."""


class OwnLoad:
    """Measures the load between two calls, of the processors that this process may use."""

    def __init__(self) -> None:
        self._process = psutil.Process()
        self._turn = threading.Lock()
        self._before = self._used()

    def state(self) -> NodeState:
        """State of this machine since the last call.

        While this process is idle, other work takes what it wants. It will leave a share to this
        process once that runs: of a processor with one other task, half.
        """
        with self._turn:
            before, self._before = self._before, self._used()
            now = self._before
        total_s = max(now.total_s - before.total_s, 1e-9)
        own = (now.own_s - before.own_s) / total_s
        others = (now.busy_s - before.busy_s) / total_s - own
        most = _FAIR if own < _UNUSED else 1.0
        return NodeState(
            others_busy=min(most, max(0.0, others)),
            free_bytes=float(psutil.virtual_memory().available),
        )

    def _used(self) -> _Used:
        # Numbers of processors are positions in psutil's list, if none is switched off.
        known = psutil.cpu_times(percpu=True)
        cores = [known[i] for i in os.sched_getaffinity(0) if i < len(known)]
        times = [core._asdict() for core in cores]
        own = self._process.cpu_times()
        idle_s = sum(core["idle"] + core.get("iowait", 0.0) for core in times)
        busy_s = sum(s for core in times for name, s in core.items() if name not in _NOT_BUSY)
        return _Used(total_s=busy_s + idle_s, busy_s=busy_s, own_s=own.user + own.system)
