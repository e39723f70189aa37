"""Networks of NAS-Bench-201 found with 100 accuracies: five devices, three data sets, eight seeds, six methods.

``PYTHONPATH=bench python -m search.nb201 --table ../shared/data/nas/nb201.npz --json bench/results/search_nb201.json --svg
bench/results/search_nb201.svg``. Times are known without a query. Figures are hypervolumes relative to that of all networks,
with the reference at 99 % of the times and an accuracy of 10 %. ``--limits SEEDS`` adds searches for the most accurate
network within each of ten limits of time. A run that was interrupted goes on from its JSON file.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from layoutsel import documents
from layoutsel.benchmarking.compare import save
from layoutsel.report.curves import Series, write_curves
from layoutsel.search.pool_search import METHODS
from layoutsel.search.tabular import NetworkTable
from layoutsel.search.tabular_bench import (
    BUDGET,
    DATA_SETS,
    DEVICES,
    SEEDS,
    SearchRow,
    constrained_regret,
    row_of,
    summaries,
    tasks,
)

PER_LIMIT = "surrogate, a search per limit"
"""Rows of searches for the most accurate network within one limit of time."""


def saved(file: Path) -> list[dict[str, Any]]:
    """Rows of an earlier run."""
    return documents.load_json(file)["rows"] if file.exists() else []


def searches(rows: Sequence[dict[str, Any]]) -> list[SearchRow]:
    """Rows of searches for the front."""
    held = (row for row in rows if row["method"] in METHODS)
    return [SearchRow(**{**row, "curve": tuple(row["curve"])}) for row in held]


def write(file: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Save rows of searches, and the summaries after them."""
    found = [asdict(one) for one in summaries(searches(rows))]
    save(
        file,
        [
            *(row for row in rows if "summary" not in row),
            *({"method": "", "summary": one} for one in found),
        ],
    )


def draw(rows: Sequence[SearchRow], file: Path) -> None:
    """Draw the hypervolume over the queries: median and tenth percentile over all tasks and seeds."""
    series = []
    for name in METHODS:
        curves = np.array([row.curve for row in rows if row.method == name])
        if not len(curves):
            continue
        steps = BUDGET * (np.arange(curves.shape[1]) + 1) / curves.shape[1]
        for label, level in (("", 50), (", worst tenth", 10)):
            values = np.percentile(curves, level, axis=0)
            series.append(
                Series(name=name + label, points=tuple(zip(steps[1:], values[1:], strict=True)))
            )
    write_curves(
        series,
        file,
        title="NAS-Bench-201: hypervolume relative to that of all networks",
        x="accuracy queries",
        y="share (median, and tenth percentile, of 15 tasks with 8 seeds)",
    )


def main() -> None:
    """Run what is missing, print the summaries and draw."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--table", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--limits", type=int, default=0, metavar="SEEDS")
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--svg", type=Path)
    arguments = parser.parse_args()
    if not arguments.table.exists():
        sys.exit(f"skipped: no table of networks at {arguments.table}")
    table = NetworkTable.load(arguments.table)
    rows = [row for row in saved(arguments.json) if "summary" not in row]
    done = {(row["device"], row["data"], row["method"], row["seed"]) for row in rows}
    for seed in range(arguments.seeds):
        for task in tasks(table, DEVICES, DATA_SETS):
            for method in METHODS:
                if (task.device, task.data, method, seed) not in done:
                    rows.append(asdict(row_of(task, method, seed)))
            save(arguments.json, rows)
    for seed in range(arguments.limits):
        for task in tasks(table, DEVICES, DATA_SETS):
            if (task.device, task.data, PER_LIMIT, seed) not in done:
                regrets = [constrained_regret(task, seed, most_us) for most_us in task.limits_us]
                rows.append(
                    {
                        "device": task.device,
                        "data": task.data,
                        "method": PER_LIMIT,
                        "seed": seed,
                        "regrets": regrets,
                    }
                )
                save(arguments.json, rows)
    write(arguments.json, rows)
    for one in summaries(searches(rows)):
        print(one, flush=True)
    limited = [row["regrets"] for row in rows if row["method"] == PER_LIMIT]
    if limited:
        print(f"within ten limits, a search each: {100 * np.mean(limited):.3f} points are lacking")
    if arguments.svg is not None:
        draw(searches(rows), arguments.svg)


if __name__ == "__main__":
    main()
