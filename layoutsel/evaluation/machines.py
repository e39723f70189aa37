"""Leave-one-machine-out evaluation: predictions before and after a short calibration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from layoutsel.cost import adapt
from layoutsel.cost.corrections import Adaptation, basis
from layoutsel.cost.samples import RecordedModel, Sample
from layoutsel.cost.training import Table, TrainingOptions, fit_point, predict_point
from layoutsel.evaluation.metrics import metrics

MEASUREMENTS = 50
"""Number of measurements of ``layoutsel calibrate``, over all units."""


def machine_transfer(
    units: Mapping[str, tuple[Sequence[Sample], Table]],
    models: Sequence[RecordedModel],
    options: TrainingOptions,
) -> dict[str, Any]:
    """Metrics by machine and unit, before and after calibration; empty for a single machine.

    The boosters have seen no sample of the machine. Workloads outside the recorded models serve
    for calibration, those of the models for the metrics.

    Parameters
    ----------
    units
        Samples and their table, by unit.
    models
        Recorded models.
    options
        Training options.
    """
    machines = sorted({s.provenance.profile.name for samples, _ in units.values() for s in samples})
    if len(machines) < 2:
        return {}
    in_models = frozenset(key for model in models for key in model.keys)
    return {machine: _transfer(machine, units, in_models, options) for machine in machines}


def _transfer(
    machine: str,
    units: Mapping[str, tuple[Sequence[Sample], Table]],
    in_models: frozenset[str],
    options: TrainingOptions,
) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for unit, (samples, table) in units.items():
        here = np.array([sample.provenance.profile.name == machine for sample in samples])
        judged = here & np.array([sample.workload.key in in_models for sample in samples])
        pool = here & ~judged
        if not judged.any() or not pool.any() or here.all():
            continue
        booster = fit_point(table[~here], options)
        adaptation = _calibrated(unit, table[pool], booster, MEASUREMENTS // len(units))
        asked = table[judged]
        before = predict_point(booster, asked)
        weights = np.array(adaptation.weights[unit])
        after = before + np.array([basis(row) @ weights for row in asked.rows])
        found[unit] = {
            "before": asdict(metrics(before, asked.targets, asked.groups)),
            "after": asdict(metrics(after, asked.targets, asked.groups)),
        }
    return found


def _calibrated(unit: str, pool: Table, booster: Any, count: int) -> Adaptation:
    predicted = predict_point(booster, pool)
    chosen = adapt.most_informative(list(pool.rows), [unit] * len(pool), count)
    return adapt.fit(
        [
            adapt.Observation(unit, pool.rows[i], float(pool.targets[i] - predicted[i]))
            for i in chosen
        ]
    )
