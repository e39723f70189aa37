"""Tables of ``layoutsel evaluate``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rich.table import Table

from layoutsel.report.plan_tables import new_table

_REGRETS = ("cold", "auto", "hybrid", "score", "roofline", "random")
"""Ways to choose plans, as keys of the evaluation."""


def accuracy_table(found: Mapping[str, Any]) -> Table:
    """Table of prediction errors, one row for each unit and predictor."""
    numbers = ("samples", "within 10 %", "within 20 %", "mean error", "rank corr.", "best found")
    table = new_table("unit", "predictor", *numbers, right=numbers)
    for unit in found["units"]:
        rows = {"learned": found["units"], **found["baselines"]}
        for name, by_unit in rows.items():
            row = by_unit[unit]
            shares = (row[key] for key in ("within_10", "within_20", "mape"))
            table.add_row(
                unit,
                name,
                str(row["samples"]),
                *(_percent(share) for share in shares),
                "" if row["spearman"] is None else f"{row['spearman']:.3f}",
                "" if row["top1"] is None else _percent(row["top1"]),
            )
    return table


def whole_model_lines(found: Mapping[str, Any]) -> Iterator[str]:
    """Shares of whole models whose predicted time is right, one line for each precision mode."""
    for mode, row in found["whole_models"].items():
        yield (
            f"sums of whole models in {mode}: {_percent(row['within_5'])} predicted within 5 %, "
            f"{_percent(row['within_10'])} within 10 %, mean error {_percent(row['mape'])}"
        )


def regret_table(found: Mapping[str, Any]) -> Table:
    """Table of losses against plans from measurements, one row for each model."""
    table = new_table("plans lose", *_REGRETS, right=_REGRETS)
    for name, model in found["models"].items():
        table.add_row(name, *(_percent(model["regret"][key]) for key in _REGRETS))
    table.add_row("mean", *(_percent(found["regret"][key]) for key in _REGRETS))
    return table


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"
