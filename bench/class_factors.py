"""Corrections of the cost model on a machine that it has not seen, by one factor for each class of kernel.

``python bench/class_factors.py --json bench/results/class_factors.json``. Each machine of the data set is left out in
turn. A class is a kernel of a unit: its anchor, layout, precision, algorithm and code. Mean errors: uncorrected; after a
calibration by 120 measurements; with the median error of each class over all of the machine's candidates outside the
judged networks; with the median errors of the judged candidates themselves, which no probe can surpass.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from layoutsel.benchmarking.compare import save
from layoutsel.cost.datasets import data_files
from layoutsel.cost.logs import read_logs
from layoutsel.cost.training import TrainingOptions
from layoutsel.evaluation.holding_out import UnitData, unit_data
from layoutsel.evaluation.machines import calibrated as calibrate
from layoutsel.evaluation.machines import left_out

Classes = dict[tuple[int, ...], list[float]]
"""Errors by class."""


def rows(units: dict[str, UnitData], in_models: frozenset[str]) -> Iterator[dict[str, Any]]:
    """Mean errors by machine and unit."""
    tables = {unit: (data.samples, data.table) for unit, data in units.items()}
    names = {s.provenance.profile.name for data in units.values() for s in data.samples}
    for machine in sorted(names):
        judged, pools = left_out(machine, tables, in_models, TrainingOptions())
        adaptation = calibrate(pools)
        for part in judged:
            (pool,) = (one for one in pools if one.unit == part.unit)
            of_pool, ideal = _by_class(pool), _by_class(part)
            usual = float(np.median(pool.errors))
            keys = _classes(part)
            yield {
                "machine": machine,
                "unit": part.unit,
                "candidates": len(keys),
                "classes": len(ideal),
                "before": _mean(part.errors),
                "calibrated": _mean(part.errors - adaptation.correct(part.traits)[0]),
                "medians_of_pool": _mean(
                    part.errors - [np.median(of_pool.get(key, [usual])) for key in keys]
                ),
                "pool": len(pool.errors),
                "ideal": _mean(part.errors - [np.median(ideal[key]) for key in keys]),
            }


def _classes(part: Any) -> list[tuple[int, ...]]:
    return [tuple(kind) for kind in part.traits.arrays[1]]


def _by_class(part: Any) -> Classes:
    found: Classes = defaultdict(list)
    for key, error in zip(_classes(part), part.errors, strict=True):
        found[key].append(error)
    return dict(found)


def _mean(errors: np.ndarray) -> float:
    """Mean of the relative errors of predictions."""
    return round(float(np.mean(np.abs(np.exp(-errors) - 1))), 4)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, required=True)
    asked = parser.parse_args()
    dataset, _ = read_logs(data_files(None))
    keys = frozenset(key for model in dataset.models for key in model.keys)
    found = []
    for row in rows(unit_data(dataset), keys):
        print(*row.values(), sep="\t", flush=True)
        found.append(row)
    save(asked.json, found)
