"""Choice of the arrangement by the load: a thread decides, and requests read its choice."""

from __future__ import annotations

import math
import threading
from collections import deque
from types import TracebackType
from typing import NamedTuple

import numpy as np

from layoutsel.device.core_load import CoreLoad
from layoutsel.device.load_monitor import INTERVAL_S, LoadMonitor
from layoutsel.exits.load_table import LoadTable

GAIN = 0.05
"""Relative gain that a change of the arrangement must promise."""
SAMPLES = 3
"""Number of successive samples of the load that must promise it."""
_CLEAR = 0.25
"""Difference in demand, cores, between the halves of the cores from which one is the busier."""
_OWN_WEIGHT = 1 / 32
"""Weight of one request's time in the average of its arrangement."""
_OTHER_WEIGHT = 1 / 256
"""Weight of one request's time for the other arrangements of its cell.

Arrangements without recent times err like the one in use, as far as anyone knows. Each of them is
therefore tried again some time after it was slower than predicted.
"""
_MOST_RATIO = 10.0
"""Largest factor between one request's time and its prediction that counts."""
_MOST_REPORTS = 1024
"""Number of times of requests kept until the next sample; the oldest ones are dropped."""


class Choice(NamedTuple):
    """Cell of the load, and arrangements of the table to use in it."""

    cell: int
    """Number of the cell."""
    chosen: int
    """Number of the arrangement."""
    off: int
    """Number of the arrangement without exits."""
    from_last: bool = False
    """True if the trunk's worker has the last cores, because the first ones are busier."""


class PlanController:
    """Chooses an arrangement of a table; a context manager that samples the load in a thread.

    The arrangement changes if another one is better by 5 % in three samples in a row. Predictions
    of a cell are corrected by the measured times of requests. The thread sleeps between samples.

    Parameters
    ----------
    table
        Arrangements by load.
    monitor
        Source of the load, which counts other processes alone; a new one if None.
    interval_s
        Time between two samples, seconds.
    """

    def __init__(
        self,
        table: LoadTable,
        monitor: LoadMonitor | None = None,
        *,
        interval_s: float = INTERVAL_S,
    ) -> None:
        self._table = table
        self._monitor = monitor or LoadMonitor()
        self._interval_s = interval_s
        self._predicted_us = np.log(np.array(table.mean_us) * np.array(table.factors))
        self._values = np.log(table.values_us)
        self._errors = np.zeros_like(self._values)
        """Natural logarithms of measured over predicted times, by cell and arrangement."""
        self._alone = np.array([not any(one.branches) for one in table.arrangements])
        self._reports: deque[tuple[Choice, float]] = deque(maxlen=_MOST_REPORTS)
        self._losing = 0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="layoutsel-exits", daemon=True)
        self.choice = Choice(0, table.chosen[0], table.off[0])
        """Choice for a request that arrives now: that of an idle host before the first sample."""
        self.switches = 0
        """Number of changes of the arrangement."""

    def __enter__(self) -> PlanController:
        self._monitor.sample()
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

    def report(self, choice: Choice, us: float) -> None:
        """Take the time of a request that ran as chosen, microseconds."""
        self._reports.append((choice, us))

    def take(self, load: CoreLoad) -> Choice:
        """Take a sample of the load, and return the new choice."""
        self._correct()
        cell = self._table.grid.cell(load)
        values = self._values[cell] + self._errors[cell]
        chosen, best = self.choice.chosen, int(values.argmin())
        gain = -math.expm1(values[best] - values[chosen])
        self._losing = self._losing + 1 if gain > GAIN else 0
        if self._losing >= SAMPLES:
            chosen, self._losing = best, 0
            self.switches += 1
        off = int(np.where(self._alone, values, np.inf).argmin())
        self.choice = Choice(cell, chosen, off, self._is_from_last(load))
        return self.choice

    def _is_from_last(self, load: CoreLoad) -> bool:
        """True if the first half of the cores is busier; unchanged if both are about equal."""
        half = len(load.busy) // 2
        more = sum(load.busy[:half]) - sum(load.busy[len(load.busy) - half :])
        return more > 0 if abs(more) > _CLEAR else self.choice.from_last

    def _correct(self) -> None:
        """Update the errors of predictions by the reported times."""
        most = math.log(_MOST_RATIO)
        while self._reports:
            (cell, chosen, *_), us = self._reports.popleft()
            row = self._errors[cell]
            error = math.log(max(us, 1e-3)) - self._predicted_us[cell, chosen]
            row[chosen] += _OWN_WEIGHT * (min(max(error, -most), most) - row[chosen])
            row += _OTHER_WEIGHT * (row[chosen] - row)

    def _watch(self) -> None:
        while not self._ended.wait(self._interval_s):
            self.take(self._monitor.sample())
