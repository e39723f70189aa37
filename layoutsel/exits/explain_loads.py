"""Explanations of tables of arrangements by load, for people and as JSON data."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass

from rich.table import Table

from layoutsel.exits.explain import workers_text
from layoutsel.exits.load_table import LoadTable
from layoutsel.report.plan_tables import milliseconds, new_table


@dataclass(frozen=True, kw_only=True)
class ChoiceAtLoad:
    """An arrangement of a table under one load."""

    workers: str
    """Workers of the trunk and of each exit."""
    predicted_us: float
    """Predicted objective, corrected by the measurement, microseconds."""
    measured_factor: float
    """Measured over predicted objective in the measurement; 1 without one."""
    is_chosen: bool
    """True for the arrangement that is used."""
    is_off: bool
    """True for the trunk alone that is used if exits must not answer."""


def choices_at(table: LoadTable, cell: int) -> tuple[ChoiceAtLoad, ...]:
    """Arrangements of a table in one of its cells, the fastest one first."""
    values_us = table.values_us[cell]
    return tuple(
        ChoiceAtLoad(
            workers=workers_text(table.arrangements[number]),
            predicted_us=float(values_us[number]),
            measured_factor=table.factors[number],
            is_chosen=number == table.chosen[cell],
            is_off=number == table.off[cell],
        )
        for number in map(int, values_us.argsort(kind="stable"))
    )


def loads_explanation(table: LoadTable, exits: Sequence[str]) -> Iterator[Table | str]:
    """Yield the arrangement by load, with its predicted time and that of the trunk alone."""
    columns = (f"{table.objective} predicted", "trunk alone", "over the best")
    found = new_table(
        *("busy cores", *_kinds(table), f"workers of trunk, {', '.join(exits[:-1])}", *columns),
        right=columns,
        title="arrangements by load",
    )
    values_us = table.values_us
    for cell, (chosen, off) in enumerate(zip(table.chosen, table.off, strict=True)):
        load = table.grid.load(cell)
        found.add_row(
            f"{load.busy_cores:g}",
            *(f"{load.streaming:.0%}" for _ in _kinds(table)),
            workers_text(table.arrangements[chosen]),
            milliseconds(values_us[cell, chosen]),
            milliseconds(values_us[cell, off]),
            f"{table.regret[cell]:.1%}",
        )
    yield found
    yield _origin(table)


def choices_explanation(table: LoadTable, cell: int) -> Iterator[Table | str]:
    """Yield all arrangements of a table under the load of one cell."""
    load = table.grid.load(cell)
    right = (f"{table.objective} predicted", "measured / predicted")
    found = new_table(
        *("workers of trunk and exits", *right, "use"),
        right=right,
        title=f"{load.busy_cores:g} of {table.grid.cores} cores busy: nearest load of the table",
    )
    for one in choices_at(table, cell):
        uses = {"chosen": one.is_chosen, "if exits must not answer": one.is_off}
        found.add_row(
            one.workers,
            milliseconds(one.predicted_us),
            f"{one.measured_factor:.2f}",
            ", ".join(use for use, is_so in uses.items() if is_so),
        )
    yield found
    yield _origin(table)


def choices_document(table: LoadTable, cell: int) -> dict[str, object]:
    """Collect what :func:`choices_explanation` tells, as JSON data."""
    return {
        "schema_version": table.schema_version,
        "objective": table.objective,
        "busy_cores": table.grid.load(cell).busy_cores,
        "arrangements": [asdict(one) for one in choices_at(table, cell)],
    }


def _kinds(table: LoadTable) -> tuple[str, ...]:
    """Column of the kind of work, if the table distinguishes any."""
    return ("streaming",) if len(table.grid.streaming) > 1 else ()


def _origin(table: LoadTable) -> str:
    """Sentence about the origin of the times."""
    if set(table.factors) == {1.0}:
        return "all times are predicted; nothing was measured"
    return "predicted for each load, and corrected by a measurement at compilation"
