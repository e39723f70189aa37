"""Map of the arrangements of a multi-exit network over loads, as predicted."""

from __future__ import annotations

from pathlib import Path

from layoutsel.exits.exit_plan import ExitPlan
from layoutsel.exits.explain import workers_text
from layoutsel.exits.load_aware_building import table_for
from layoutsel.exits.load_grid import LoadGrid
from layoutsel.exits.load_table import LoadTable
from layoutsel.report.colour_map import MapCell, write_colour_map

STREAMING = (0.0, 1.0)
"""Kinds of other work in a map: shares of it that stream through the main memory."""


def map_table(plan: ExitPlan) -> LoadTable:
    """Make the table of a map, which distinguishes kinds of work as well."""
    return table_for(plan, grid=LoadGrid.of_host(plan.costs.cores, STREAMING))


def write_load_map(table: LoadTable, file: Path, *, title: str) -> None:
    """Draw the arrangement by number of busy cores and kind of work.

    Each cell has the predicted objective, and how many times longer the trunk alone takes.

    Raises
    ------
    WriteError
        If the file cannot be written.
    """
    levels = table.grid.busy
    values_us = table.values_us
    cells = []
    for cell, (chosen, off) in enumerate(zip(table.chosen, table.off, strict=True)):
        us, off_us = float(values_us[cell, chosen]), float(values_us[cell, off])
        lines = (f"{us / 1e3:.3f} ms", f"trunk alone × {off_us / us:.2f}")
        cells.append(MapCell(choice=chosen, lines=lines))
    write_colour_map(
        [cells[at : at + len(levels)] for at in range(0, len(cells), len(levels))],
        file,
        columns=[f"{busy:g}" for busy in levels],
        rows=[f"{share:.0%} streaming" for share in table.grid.streaming],
        choices=[f"workers of trunk and exits: {workers_text(one)}" for one in table.arrangements],
        title=title,
        x="cores that other work occupies",
    )
