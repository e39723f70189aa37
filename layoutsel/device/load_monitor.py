"""Monitor of the present load: what other processes want of the cores of this one."""

from __future__ import annotations

import logging
import math
import os
import threading
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from layoutsel.device.core_load import CoreLoad
from layoutsel.device.load_counters import PROC, Counters, read_counters

logger = logging.getLogger(__name__)

INTERVAL_S = 0.05
"""Time between two samples, seconds."""
MEMORY_S = 0.25
"""Time constant of the exponential average, seconds."""
_SATURATED = 0.9
"""Demand from which all time of a core that this process leaves is in use."""
_WAITING = 0.02
"""Share of the time with waiting tasks below which nobody waits."""


class LoadMonitor:
    """Average of the load of recent moments; a context manager that samples in a thread.

    The load includes all processes but this one. If the counters are not readable, the machine
    counts as idle, and one warning says so.

    Parameters
    ----------
    cores
        Core numbers; by default those that this thread may use.
    interval_s
        Time between two samples of the thread, seconds.
    proc
        Folder of the counters.
    """

    def __init__(
        self,
        cores: Sequence[int] | None = None,
        *,
        interval_s: float = INTERVAL_S,
        proc: Path = PROC,
    ) -> None:
        self._cores = sorted(os.sched_getaffinity(0) if cores is None else cores)
        self._interval_s, self._proc = interval_s, proc
        self._load = CoreLoad.idle(len(self._cores))
        self._others: float | None = None
        self._last: Counters | None = None
        self._is_readable = True
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="layoutsel-load", daemon=True)

    def __enter__(self) -> LoadMonitor:
        self.sample()
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._ended.set()
        self._thread.join()

    @property
    def load(self) -> CoreLoad:
        """Average load of the last moments; idle before the second sample."""
        return self._load

    def sample(self) -> CoreLoad:
        """Read the counters once, and return the new average."""
        now = self._counters()
        last, self._last = self._last, now
        if now is None or last is None or now.time_s <= last.time_s:
            return self._load
        weight = -math.expm1((last.time_s - now.time_s) / MEMORY_S)
        others = now.others if self._others is None else self._others
        self._others = others + weight * (now.others - others)
        seen = _demands(last, now, self._cores)
        self._load = CoreLoad(
            busy=tuple(
                old + weight * (new - old)
                for old, new in zip(self._load.busy, self._crowded(seen), strict=True)
            )
        )
        return self._load

    def _crowded(self, demands: Sequence[float]) -> list[float]:
        """Raise the demand for saturated cores to the number of runnable tasks of others."""
        full = sum(demand for demand in demands if demand >= _SATURATED)
        if not full or self._others is None:
            return list(demands)
        factor = max((self._others - (sum(demands) - full)) / full, 1.0)
        return [factor * demand if demand >= _SATURATED else demand for demand in demands]

    def _counters(self) -> Counters | None:
        if not self._is_readable:
            return None
        try:
            return read_counters(self._cores, self._proc)
        except (OSError, ValueError, IndexError, KeyError) as error:
            self._is_readable = False
            self._load = CoreLoad.idle(len(self._cores))
            logger.warning(
                "cannot read the load of this machine from %s (%s): it counts as idle",
                self._proc,
                error,
            )
            return None

    def _watch(self) -> None:
        while not self._ended.wait(self._interval_s):
            self.sample()


def _demands(before: Counters, now: Counters, cores: Sequence[int]) -> list[float]:
    """Demand of other processes for each core, 0 to 1.

    A task that got less of a core than this process got all that it wanted, as the scheduler is
    fair. One that got more may have waited while this process ran. Its demand is its share of the
    time that this process left.
    """
    seconds, own_s = now.time_s - before.time_s, now.own_s(before)
    waited_s = None
    if now.waited_s is not None and before.waited_s is not None:
        waited_s = now.waited_s - before.waited_s
    is_waiting = waited_s is None or waited_s > _WAITING * seconds
    found = []
    for core in cores:
        own = own_s[core] / seconds
        other = min(max((now.busy_s[core] - before.busy_s[core]) / seconds - own, 0.0), 1.0)
        if is_waiting and other >= own:
            other = min(other / max(1.0 - own, other, 1e-9), 1.0)
        found.append(other)
    return found
