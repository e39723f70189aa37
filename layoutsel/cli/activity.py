"""Progress on standard error: the phase, and a bar with the time left while measuring."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from layoutsel.report import terminal

if TYPE_CHECKING:
    from layoutsel.cost.measured import PricingProgress

_BOUNDARIES = ("transform", "crossing")
"""Keys of requests that measure boundaries."""
_LINE_EVERY_S = 15.0
"""Time between two lines if standard error is not a terminal, seconds."""


class Activity:
    """A live display on a terminal, or a regular line elsewhere; a context manager."""

    def __init__(self) -> None:
        self.measured = 0
        """Number of measurements so far."""
        self._live = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=30),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("[dim]{task.fields[label]}"),
            console=terminal.stderr(),
            transient=True,
            disable=not terminal.stderr().is_terminal,
        )
        self._task = self._live.add_task("starting", total=None, label="")
        self._start = self._last = time.monotonic()

    def __enter__(self) -> Activity:
        self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._live.stop()

    def phase(self, text: str) -> None:
        """Show the present phase."""
        self._live.reset(self._task, total=None, description=text, label="")

    def __call__(self, progress: PricingProgress) -> None:
        """Show the report about one measurement."""
        self.measured += 1
        what = "boundaries" if progress.request.key in _BOUNDARIES else "candidates"
        self._step("measuring", what, progress.done, progress.total, progress.request.label)

    def compiled(self, done: int, total: int, label: str) -> None:
        """Show the report about one compiled candidate or boundary."""
        self._step("compiling", "candidates", done, total, label)

    def _step(self, doing: str, what: str, done: int, total: int, label: str) -> None:
        if done == 1:
            self._start = time.monotonic()
            self._live.reset(self._task)
        self._live.update(
            self._task, description=f"{doing} {what}", completed=done, total=total, label=label
        )
        if self._live.disable and time.monotonic() - self._last >= _LINE_EVERY_S:
            self._last = time.monotonic()
            left_s = (total - done) * self._mean_s(done)
            terminal.note(doing, f"{done} of {total}, about {left_s:.0f} s left")

    def _mean_s(self, done: int) -> float:
        return (time.monotonic() - self._start) / max(1, done - 1)


@contextmanager
def activity() -> Iterator[Activity]:
    """Show an :class:`Activity`; after Ctrl-C, the message states the kept measurements."""
    with Activity() as shown:
        try:
            yield shown
        except KeyboardInterrupt:
            kept = (
                f"; {shown.measured} new measurements are kept, the same command continues from "
                f"there"
            )
            raise KeyboardInterrupt(f"interrupted{kept if shown.measured else ''}") from None
