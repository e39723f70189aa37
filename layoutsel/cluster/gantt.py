"""Gantt charts of nodes and links: a row for each resource, colours for requests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from layoutsel.cluster.simulated_attempt import Bar
from layoutsel.report.gantt import GanttBar, GanttMark, numbered_colour, write_chart


def write_gantt(
    bars: Sequence[Bar], file: Path, *, title: str, losses_us: Mapping[str, float] | None = None
) -> None:
    """Draw `bars`, and the times at which nodes were lost.

    Raises
    ------
    WriteError
        If the file cannot be written.
    """
    drawn = [
        GanttBar(
            row=bar.resource,
            start_us=bar.start_us,
            end_us=bar.end_us,
            colour=numbered_colour(bar.request),
            text=f"request {bar.request}, {bar.step}: {bar.start_us:,.0f} to {bar.end_us:,.0f} µs",
        )
        for bar in bars
    ]
    rows = sorted({bar.resource for bar in bars}, key=lambda name: (_is_link(name), name))
    marks = [GanttMark(at_us=us, text=f"{name} lost") for name, us in (losses_us or {}).items()]
    write_chart(drawn, rows, file, title=title, marks=marks)


def _is_link(name: str) -> bool:
    """True if a resource is a link or a medium, by its name."""
    return name.startswith(("link ", "medium "))
