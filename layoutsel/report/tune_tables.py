"""Tables about tuning."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.table import Table

from layoutsel.report.plan_tables import microseconds, new_table
from layoutsel.tuning.progress import TuningProgress

_COLUMNS = ("task", "×", "trials", "failed", "best µs", "GFLOP/s")
"""Headings; a column without one holds errors."""


def task_table(results: Iterable[TuningProgress], *, title: str | None = None) -> Table:
    """Table of tuning tasks."""
    table = new_table(*_COLUMNS, "", right=_COLUMNS[1:], title=title)
    for result in results:
        best = result.best_us
        table.add_row(
            result.task.name,
            str(result.task.occurrences),
            f"{result.found + result.trials}/{result.wanted}",
            str(result.failed),
            microseconds(best),
            f"{result.task.flops / best / 1e3:,.1f}" if best else "–",
            result.error or "",
        )
    return table


def summary(results: Sequence[TuningProgress]) -> str:
    """Total counts in one line."""
    new = sum(result.trials for result in results)
    found = sum(result.found for result in results)
    failed = sum(result.failed for result in results)
    given_up = sum(result.error is not None for result in results)
    return (
        f"{len(results)} tasks, {new} new trials, {found} recorded before, "
        f"{failed} schedules failed" + (f", {given_up} tasks given up" if given_up else "")
    )
