"""Progress of tuning on standard error: a bar with the time left, and the latest tasks."""

from __future__ import annotations

import time
from types import TracebackType
from typing import TYPE_CHECKING

from rich.console import Group
from rich.live import Live
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from layoutsel.report import terminal
from layoutsel.report.tune_tables import task_table

if TYPE_CHECKING:
    from layoutsel.tuning.progress import TuningProgress

_ROWS = 12
"""Maximum number of tasks on display."""
_LINE_EVERY_S = 15.0
"""Time between two lines if standard error is not a terminal, seconds."""


class TuningDisplay:
    """A live display on a terminal, or a regular line elsewhere; a context manager.

    Parameters
    ----------
    tasks
        Number of tasks.
    trials
        Number of trials for each task.
    """

    def __init__(self, tasks: int, trials: int) -> None:
        self.trials = 0
        """Number of trials so far, without recorded ones."""
        self._latest: dict[str, TuningProgress] = {}
        self._left: dict[str, int] = {}
        self._made: dict[str, int] = {}
        self._tasks, self._wanted = tasks, trials
        self._bar = Progress(
            TextColumn("tuning"),
            BarColumn(bar_width=40),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=terminal.stderr(),
        )
        self._task = self._bar.add_task("tuning", total=tasks * trials)
        self._is_live = terminal.stderr().is_terminal
        self._live = Live(console=terminal.stderr(), transient=True, auto_refresh=self._is_live)
        self._start = self._last = time.monotonic()

    def __enter__(self) -> TuningDisplay:
        if self._is_live:
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._is_live:
            self._live.stop()

    def __call__(self, progress: TuningProgress) -> None:
        """Show the report about one trial, or about the end of a task."""
        name = progress.task.name
        self.trials += progress.trials - self._made.get(name, 0)
        self._latest.pop(name, None)
        self._latest[name] = progress
        self._left[name] = progress.left
        self._made[name] = progress.trials
        left = sum(self._left.values()) + self._wanted * (self._tasks - len(self._left))
        self._bar.update(self._task, completed=self.trials, total=self.trials + left)
        if self._is_live:
            rows = list(self._latest.values())[-_ROWS:]
            self._live.update(Group(self._bar, task_table(rows)))
        elif time.monotonic() - self._last >= _LINE_EVERY_S:
            self._last = time.monotonic()
            self._write(progress, left)

    def _write(self, progress: TuningProgress, left: int) -> None:
        left_s = left * (time.monotonic() - self._start) / max(1, self.trials)
        best = "none yet" if progress.best_us is None else f"{progress.best_us:.1f} us"
        terminal.note(
            "tuning",
            f"{self.trials} of {self.trials + left} trials, about {left_s:.0f} s left; "
            f"{progress.task.name}: best {best}",
        )
