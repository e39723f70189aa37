"""Differences between predicted and measured times, as text and tables."""

from __future__ import annotations

from collections.abc import Iterator

from rich.table import Table

from layoutsel.planning.plan import Plan
from layoutsel.planning.residuals import Residuals
from layoutsel.report.plan_tables import change, microseconds, milliseconds, new_table, source_text

_WORST = 8
"""Number of sub-graphs in the table."""
_NAMED = 3
"""Number of sub-graphs named in the text."""


def residual_lines(plan: Plan, residuals: Residuals) -> Iterator[str]:
    """Short text about the origins of the difference between prediction and measurement."""
    parts = ", ".join(f"{name} {us / 1e3:+.3f} ms" for name, us in residuals.parts.items() if us)
    yield (
        f"measured {milliseconds(residuals.measured_us)}, "
        f"predicted {milliseconds(residuals.predicted_us)} "
        f"± {milliseconds(plan.spread_us)}: {parts}"
    )
    worst = ", ".join(
        f"{subgraph.id} {change(subgraph.error_us)} µs" for subgraph in residuals.worst(_NAMED)
    )
    if worst:
        yield f"furthest off: {worst}; {_merged(residuals)}"


def _merged(residuals: Residuals) -> str:
    merged = [subgraph for subgraph in residuals.subgraphs if subgraph.merged]
    if not merged:
        return "none was merged with a neighbour"
    error_us = sum(subgraph.error_us for subgraph in merged)
    alone = sum(subgraph.is_fusion for subgraph in merged)
    return (
        f"{len(merged)} merged with neighbours: {change(error_us)} µs, "
        f"{alone} of them measured alone, whose share is fusion"
    )


def worst_table(residuals: Residuals) -> Table:
    """Table of the sub-graphs with the largest differences, and of all transforms."""
    numbers = ("predicted µs", "±", "in the plan µs", "± ", "off µs")
    table = new_table(
        *("furthest off", "decision", *numbers[:2], "from", *numbers[2:], "merged"), right=numbers
    )
    for subgraph in residuals.worst(_WORST):
        table.add_row(
            subgraph.id,
            str(subgraph.decision),
            microseconds(subgraph.predicted_us),
            microseconds(subgraph.spread_us),
            source_text(subgraph.source),
            microseconds(subgraph.in_plan_us),
            microseconds(subgraph.in_plan_spread_us),
            change(subgraph.error_us),
            "yes" if subgraph.merged else "",
        )
    for transform in residuals.transforms:
        table.add_row(
            "transforms",
            f"{transform.name}: {transform.predicted} planned, {transform.ran} run",
            microseconds(transform.predicted_us),
            *("", "", microseconds(transform.in_plan_us), ""),
            change(transform.error_us),
            "",
        )
    return table


def in_plan_lines(residuals: Residuals, id_: str) -> Iterator[str]:
    """Measured time of one sub-graph within the plan."""
    for subgraph in residuals.subgraphs:
        if subgraph.id == id_ and subgraph.in_plan_us is not None:
            merged = ", merged with its neighbours" if subgraph.merged else ""
            yield (
                f"took {microseconds(subgraph.in_plan_us)} "
                f"± {microseconds(subgraph.in_plan_spread_us)} µs "
                f"in the plan{merged}: {change(subgraph.error_us)} µs off"
            )
