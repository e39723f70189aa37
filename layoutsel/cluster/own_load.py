"""Load of this machine by other processes, and its free memory."""

from __future__ import annotations

import psutil

from layoutsel.cluster.statistics import NodeState


class OwnLoad:
    """Measures the load between two calls."""

    def __init__(self) -> None:
        self._process = psutil.Process()
        # The first values of psutil are meaningless: they begin an interval.
        self._process.cpu_percent()
        psutil.cpu_percent()

    def state(self) -> NodeState:
        """State of this machine since the last call."""
        own = self._process.cpu_percent() / (psutil.cpu_count() or 1)
        others = (psutil.cpu_percent() - own) / 100
        return NodeState(
            others_busy=min(1.0, max(0.0, others)),
            free_bytes=float(psutil.virtual_memory().available),
        )
