"""Progress of one tuning task."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from layoutsel.tuning.devices import Times
from layoutsel.tuning.tasks import Task


@dataclass(kw_only=True)
class TuningProgress:
    """Counts and best time of one task."""

    task: Task
    """Function to tune."""
    wanted: int
    """Number of trials to reach."""
    found: int = 0
    """Number of trials that were recorded before."""
    trials: int = 0
    """Number of trials of this process."""
    failed: int = 0
    """Number of all trials whose schedule did not build or run."""
    best_us: float | None = None
    """Time of the fastest schedule, microseconds; None before the first."""
    finished: bool = False
    """True if no further trials follow."""
    error: str | None = None
    """Reason why the task was abandoned; None if it was not."""

    @property
    def left(self) -> int:
        """Number of missing trials."""
        return 0 if self.finished else self.wanted - self.found - self.trials

    def count(self, times: Times) -> None:
        """Count the times of one schedule; empty times are a failure."""
        if times:
            us = 1e6 * sum(times) / len(times)
            self.best_us = us if self.best_us is None else min(self.best_us, us)
        else:
            self.failed += 1


OnTrial = Callable[[TuningProgress], None]
"""Function that receives the progress after each trial."""
