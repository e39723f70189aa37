"""Map of the arrangements of a multi-exit network over loads and requests, as predicted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from layoutsel.exits.exit_plan import ExitPlan
from layoutsel.exits.explain import workers_text
from layoutsel.exits.load_aware_building import table_for
from layoutsel.exits.load_table import LoadTable
from layoutsel.exits.patterns import SurePattern
from layoutsel.report.colour_map import MapCell, write_colour_map

HARD = (0.0, 0.5, 0.9, 1.0)
"""Shares of the requests of which no exit is sure, in a map."""
_PARTS = 1000
"""Resolution of these shares."""


def map_tables(plan: ExitPlan) -> dict[float, LoadTable]:
    """Make the table of a plan for each of the shares in :data:`HARD`.

    The other requests have the observed patterns of sure exits.
    """
    easy = [one for one in plan.patterns if one.exits]
    total = max(1, sum(one.samples for one in easy))
    tables = {}
    for share in HARD:
        parts = round(_PARTS * share)
        patterns = [replace(one, samples=one.samples * (_PARTS - parts)) for one in easy]
        patterns.append(SurePattern(exits=(), samples=total * parts))
        observed = tuple(one for one in patterns if one.samples)
        tables[share] = table_for(replace(plan, patterns=observed))
    return tables


def write_load_map(tables: Mapping[float, LoadTable], file: Path, *, title: str) -> None:
    """Draw the arrangement by number of busy cores, and by share of requests without a sure exit.

    Each cell has the predicted objective, and how many times longer the trunk alone takes.

    Raises
    ------
    WriteError
        If the file cannot be written.
    """
    grid = next(iter(tables.values())).grid
    chosen = {
        share: [table.arrangements[number] for number in table.chosen]
        for share, table in tables.items()
    }
    choices = list(dict.fromkeys(one for row in chosen.values() for one in row))
    cells = [
        [
            MapCell(choice=choices.index(one), lines=_lines(table, cell))
            for cell, one in enumerate(chosen[share])
        ]
        for share, table in tables.items()
    ]
    write_colour_map(
        cells,
        file,
        columns=[f"{grid.load(cell).busy_cores:g}" for cell in range(grid.cells)],
        rows=[f"no exit sure: {share:.0%}" for share in tables],
        choices=[f"workers of trunk and exits: {workers_text(one)}" for one in choices],
        title=title,
        x="cores that other work occupies",
    )


def _lines(table: LoadTable, cell: int) -> tuple[str, ...]:
    """Objective of a cell, and that of the trunk alone relative to it."""
    values_us = table.values_us[cell]
    us, off_us = float(values_us[table.chosen[cell]]), float(values_us[table.off[cell]])
    return f"{us / 1e3:.3f} ms", f"trunk alone × {off_us / us:.2f}"
