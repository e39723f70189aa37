"""Leave-one-machine-out evaluation: predictions before and after a short calibration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from layoutsel.cost import adapt
from layoutsel.cost.corrections import NOISE, Adaptation, Traits
from layoutsel.cost.features import NAMES, VOCABULARY
from layoutsel.cost.samples import RecordedModel, Sample
from layoutsel.cost.training import Table, TrainingOptions, fit_point, predict_point
from layoutsel.evaluation.metrics import metrics

MEASUREMENTS = 120
"""Number of measurements of ``layoutsel calibrate``, over all units."""
_POOL = 900
"""Maximum number of candidates to choose these from."""
_FEWEST = 20
"""Minimum number of candidates of a precision to calibrate it."""
_DECILE = 1.2816
"""Upper decile of the standard normal distribution."""


@dataclass(frozen=True, kw_only=True)
class Predicted:
    """Candidates of one unit on the left-out machine, predicted without it."""

    unit: str
    """Name of the unit."""
    table: Table
    """Features and measured times."""
    values: np.ndarray
    """Predicted natural logarithms of microseconds."""

    @property
    def traits(self) -> Traits:
        """Traits of the candidates."""
        rows = self.table.rows[:, : len(NAMES)]
        return Traits.of([self.unit] * len(self.table), rows, self.values)

    @property
    def precisions(self) -> np.ndarray:
        """Features of the candidates that tell their precision."""
        columns = [NAMES.index(f"precision_{name}") for name in VOCABULARY["precision"]]
        return self.table.rows[:, columns]

    @property
    def errors(self) -> np.ndarray:
        """Measured minus predicted logarithms of time."""
        return self.table.targets - self.values


def machine_transfer(
    units: Mapping[str, tuple[Sequence[Sample], Table]],
    models: Sequence[RecordedModel],
    options: TrainingOptions,
) -> dict[str, Any]:
    """Metrics by machine and unit, before and after calibration; empty for a single machine.

    The boosters have seen no sample of the machine. Workloads outside the recorded models serve
    for calibration, those of the models for the metrics, in the precisions that both have: the
    command measures candidates in every precision.

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


def left_out(
    machine: str,
    units: Mapping[str, tuple[Sequence[Sample], Table]],
    in_models: frozenset[str],
    options: TrainingOptions,
) -> tuple[list[Predicted], list[Predicted]]:
    """Predict a machine's candidates without it: those of models, and those outside of them."""
    judged, pools = list[Predicted](), list[Predicted]()
    for unit, (samples, table) in units.items():
        here = np.array([sample.provenance.profile.name == machine for sample in samples])
        in_model = np.array([sample.workload.key in in_models for sample in samples])
        pooled = here & ~in_model
        met = here & in_model & _in_precisions(samples, pooled)
        if not met.any() or here.all():
            continue
        booster = fit_point(table[~here], options)
        for parts, rows in ((judged, met), (pools, pooled)):
            asked = table[rows]
            parts.append(Predicted(unit=unit, table=asked, values=predict_point(booster, asked)))
    return judged, pools


def _transfer(
    machine: str,
    units: Mapping[str, tuple[Sequence[Sample], Table]],
    in_models: frozenset[str],
    options: TrainingOptions,
) -> dict[str, Any]:
    judged, pools = left_out(machine, units, in_models, options)
    adaptation = calibrated(pools) if pools else Adaptation()
    return {part.unit: _before_and_after(part, adaptation) for part in judged}


def _in_precisions(samples: Sequence[Sample], rows: np.ndarray) -> np.ndarray:
    """Mask of the samples in the precisions of some of `rows`: those of :data:`_FEWEST` or more."""
    precisions = np.array([sample.decision.precision for sample in samples])
    names, counts = np.unique(precisions[rows], return_counts=True)
    return np.isin(precisions, names[counts >= _FEWEST])


def calibrated(pools: Sequence[Predicted]) -> Adaptation:
    """Calibrate as the command does, with samples in place of measurements.

    Its sub-graphs have candidates in every precision, so that all are equally frequent.
    """
    groups = [
        (part, np.flatnonzero((part.precisions == precision).all(axis=1)))
        for part in pools
        for precision in np.unique(part.precisions, axis=0)
    ]
    most = _POOL // len(groups)
    units, rows, values, errors = zip(
        *(
            (p.unit, p.table.rows[n, : len(NAMES)], p.values[n], p.errors[n])
            for p, numbers in groups
            for n in numbers[:: -(-len(numbers) // most)]
        ),
        strict=True,
    )
    pool = Traits.of(units, np.stack(rows), np.array(values))
    chosen = adapt.most_informative(pool, MEASUREMENTS)
    return adapt.useful(Adaptation(pool.take(chosen), tuple(float(errors[n]) for n in chosen)))[0]


def _before_and_after(part: Predicted, adaptation: Adaptation) -> dict[str, Any]:
    table, (expected, deviations) = part.table, adaptation.correct(part.traits)
    left = np.abs(part.errors - expected)
    return {
        "before": asdict(metrics(part.values, table.targets, table.groups)),
        "after": asdict(metrics(part.values + expected, table.targets, table.groups)),
        "coverage_80": round(float(np.mean(left <= _DECILE * np.hypot(deviations, NOISE))), 4),
    }
