"""Training of the learned cost model; deterministic, with one thread and fixed folds.

Equal data and an equal seed give equal bytes.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from layoutsel.cost import boundary_features, features, tiles
from layoutsel.cost.boosters import QUANTILES
from layoutsel.cost.learned import (
    BOUNDARY,
    Boosters,
    LearnedModel,
    feature_names,
    hash_of,
)
from layoutsel.cost.model import CROSSING
from layoutsel.cost.model_card import FORMAT_VERSION, ModelCard, PartCard
from layoutsel.cost.samples import BoundarySample, Dataset, Sample, joins_device
from tvm_passes.errors import LayoutselError

FOLDS = 5
"""Number of folds of the cross-validation."""
FEWEST = 20
"""Minimum number of samples of a part."""


@dataclass(frozen=True, kw_only=True)
class TrainingOptions:
    """Hyperparameters of the boosters."""

    rounds: int = 700
    """Number of trees that predict time."""
    quantile_rounds: int = 150
    """Number of trees that predict the quantiles of the error."""
    depth: int = 8
    """Maximum depth of a tree."""
    rate: float = 0.04
    """Learning rate."""
    least_weight: float = 2.0
    """Minimum total weight of the samples in a leaf."""
    seed: int = 0
    """Seed of the random sampling of rows and features."""


@dataclass(frozen=True)
class Table:
    """Training samples of one part as arrays."""

    rows: np.ndarray
    """Features, (samples, features) float32."""
    margins: np.ndarray
    """Natural logarithms of the roofline's microseconds, (samples,)."""
    targets: np.ndarray
    """Natural logarithms of the measured microseconds, (samples,)."""
    weights: np.ndarray
    """Weights of the samples, 0 to 1, (samples,)."""
    spreads: np.ndarray
    """Relative spreads of the measurements, (samples,)."""
    groups: tuple[str, ...]
    """Groups of the samples, such as workloads; a split never divides a group."""
    monotone: str
    """Monotonicity constraint of each feature, in XGBoost's notation."""

    def __getitem__(self, kept: np.ndarray) -> Table:
        return Table(
            self.rows[kept],
            self.margins[kept],
            self.targets[kept],
            self.weights[kept],
            self.spreads[kept],
            tuple(group for group, keep in zip(self.groups, kept, strict=True) if keep),
            self.monotone,
        )

    def __len__(self) -> int:
        return len(self.targets)


def subgraph_table(samples: Sequence[Sample]) -> Table:
    """Make the table of one unit's samples."""
    asked = [
        features.PricingQuestion(s.workload, s.decision, s.provenance.profile) for s in samples
    ]
    rows, margins = features.feature_table(asked)
    return Table(
        rows,
        margins,
        np.log([sample.us for sample in samples]),
        np.array([sample.weight for sample in samples]),
        np.array([sample.spread_us / sample.us for sample in samples]),
        tuple(sample.workload.key for sample in samples),
        constraints(_names(samples), features.MONOTONE),
    )


def _names(samples: Sequence[Sample]) -> tuple[str, ...]:
    on_device = bool(samples) and _device(samples[0]) is not None
    return features.NAMES + (features.DEVICE_NAMES if on_device else ())


def _device(sample: Sample) -> str | None:
    """Return the name of a sample's device; None for the host."""
    device = sample.provenance.profile.device(sample.decision.device)
    return device.name if device is not None else None


def boundary_table(samples: Sequence[BoundarySample]) -> Table:
    """Make the table of all boundaries."""
    asked = [
        boundary_features.AskedBoundary(
            s.kind, s.source, s.destination, s.tensor, s.provenance.profile
        )
        for s in samples
    ]
    rows, margins = boundary_features.feature_table(asked)
    return Table(
        rows,
        margins,
        np.array([boundary_features.log_time(sample.us) for sample in samples]),
        np.array([sample.weight for sample in samples]),
        np.array([sample.spread_us / max(sample.us, 1e-3) for sample in samples]),
        tuple(str(sample.tensor.shape) for sample in samples),
        constraints(boundary_features.NAMES, boundary_features.MONOTONE),
    )


def constraints(names: Sequence[str], monotone: frozenset[str]) -> str:
    """Write XGBoost's constraints: features of `monotone` never lower the prediction."""
    return "(" + ",".join("1" if name in monotone else "0" for name in names) + ")"


@dataclass(frozen=True, kw_only=True)
class SeenNames:
    """Names in the samples of a part; see :class:`~layoutsel.cost.model_card.PartCard`."""

    machines: tuple[str, ...]
    """Names of the machines' profiles, or of the devices."""
    operators: tuple[str, ...]
    """Anchor operators, or kinds of boundary steps."""
    forms: tuple[str, ...]
    """Precisions, or layouts and units of boundaries."""
    device_features: tuple[str, ...] = ()
    """Names of the unit's additional features, for units on devices."""
    layouts: tuple[str, ...] = ()
    """Layouts of decisions."""
    algorithms: tuple[str, ...] = ()
    """Algorithms of decisions."""
    fused: tuple[str, ...] = ()
    """Operators of all sub-graphs."""
    unhinted: tuple[str, ...] = ()
    """Anchor operators of sub-graphs without facts about their code."""


def tables(dataset: Dataset) -> Iterator[tuple[str, Table, SeenNames]]:
    """Yield the name, the table and the seen names of each part."""
    for unit in sorted({sample.decision.unit for sample in dataset.samples}):
        mine = [sample for sample in dataset.samples if sample.decision.unit == unit]
        # A sample without a description of its device lacks the features of devices.
        mine = [sample for sample in mine if _device(sample) is not None] or mine
        devices = _sorted(device for sample in mine if (device := _device(sample)) is not None)
        seen = SeenNames(
            machines=devices or _machines(mine),
            operators=_sorted(sample.workload.operator for sample in mine),
            forms=_sorted(sample.decision.precision for sample in mine),
            device_features=features.DEVICE_NAMES if devices else (),
            layouts=_sorted(sample.decision.layout for sample in mine),
            algorithms=_sorted(sample.decision.algorithm for sample in mine),
            fused=_sorted(name for sample in mine for name in sample.workload.operators),
            unhinted=_sorted(s.workload.operator for s in mine if not s.workload.hints),
        )
        yield unit, subgraph_table(mine), seen
    if boundaries := [boundary for boundary in dataset.boundaries if not is_copy(boundary)]:
        seen = SeenNames(
            machines=_machines(boundaries),
            operators=_sorted(sample.kind for sample in boundaries),
            forms=_sorted(end for s in boundaries for end in (s.source, s.destination)),
        )
        yield BOUNDARY, boundary_table(boundaries), seen


def is_copy(boundary: BoundarySample) -> bool:
    """True if the boundary joins two memories; links price such copies."""
    ends = boundary.source, boundary.destination
    return boundary.kind == CROSSING and joins_device(boundary.provenance.profile, *ends)


def _sorted(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted(set(names)))


def _machines(samples: Sequence[Sample] | Sequence[BoundarySample]) -> tuple[str, ...]:
    return _sorted(sample.provenance.profile.name for sample in samples)


@dataclass(frozen=True)
class PointModel:
    """Predictor of the logarithm of time."""

    booster: Any
    """Booster that corrects the estimates."""
    rates: tuple[float, ...]
    """Rates of the terms of kernels on tiles; empty without any."""


def fit_point(table: Table, options: TrainingOptions) -> PointModel:
    """Learn the rates of kernels on tiles, and train a booster that corrects the estimates."""
    import xgboost

    rates = tiles.fit_rates(table.rows, table.targets, table.weights)
    margins = tiles.margins(table.rows, table.margins, rates)

    parameters = {**_parameters(table, options), "objective": "reg:squarederror"}
    data = xgboost.DMatrix(
        table.rows, label=table.targets, weight=table.weights, base_margin=margins
    )
    return PointModel(xgboost.train(parameters, data, options.rounds), rates)


def predict_point(model: PointModel, table: Table) -> np.ndarray:
    """Predict the natural logarithm of time of each row."""
    margins = tiles.margins(table.rows, table.margins, model.rates)
    return model.booster.inplace_predict(table.rows, base_margin=margins)


def held_out_errors(table: Table, options: TrainingOptions) -> np.ndarray:
    """Compute the held-out error of each row: target minus the prediction without its group."""
    fold = np.array([zlib.crc32(group.encode()) % FOLDS for group in table.groups])
    # Without other groups to train on, the roofline is the prediction.
    errors = table.targets - table.margins
    for number in range(FOLDS):
        held, rest = fold == number, fold != number
        if held.any() and rest.any():
            booster = fit_point(table[rest], options)
            errors[held] = table.targets[held] - predict_point(booster, table[held])
    return errors


def fit_part(table: Table, options: TrainingOptions) -> tuple[Boosters, np.ndarray]:
    """Train both boosters of a part; returns them with the held-out errors."""
    import xgboost

    errors = held_out_errors(table, options)
    parameters = {
        **_parameters(table, options),
        "objective": "reg:quantileerror",
        "quantile_alpha": list(QUANTILES),
        "max_depth": 4,
        "min_child_weight": 20 * options.least_weight,
        "base_score": 0.0,
    }
    parameters.pop("monotone_constraints")
    data = xgboost.DMatrix(table.rows, label=errors, weight=table.weights)
    quantiles = xgboost.train(parameters, data, options.quantile_rounds)
    point = fit_point(table, options)
    return Boosters(_raw(point.booster), _raw(quantiles), point.rates), errors


def train(
    dataset: Dataset,
    options: TrainingOptions | None = None,
    on_part: Callable[[str, int], None] = lambda _name, _samples: None,
) -> LearnedModel:
    """Train every part that has enough samples.

    Parameters
    ----------
    dataset
        Measurements to learn from.
    options
        Hyperparameters.
    on_part
        Called with the name and the number of samples before a part is trained.

    Raises
    ------
    LayoutselError
        If no unit has enough samples.
    """
    options = options or TrainingOptions()
    parts, cards, device_features = {}, {}, {}
    for name, table, seen in tables(dataset):
        if len(table) < FEWEST:
            continue
        on_part(name, len(table))
        parts[name], errors = fit_part(table, options)
        if seen.device_features:
            device_features[name] = seen.device_features
        off = np.abs(np.expm1(-errors))
        cards[name] = PartCard(
            samples=len(table),
            workloads=len(set(table.groups)),
            machines=seen.machines,
            operators=seen.operators,
            forms=seen.forms,
            within_10=round(float(np.mean(off <= 0.1)), 4),
            mape=round(float(np.mean(off)), 4),
            layouts=seen.layouts,
            algorithms=seen.algorithms,
            fused=seen.fused,
            unhinted=seen.unhinted,
            rates=parts[name].rates,
        )
    if not set(parts) - {BOUNDARY}:
        raise LayoutselError(
            f"got {len(dataset.samples)} samples; expected at least {FEWEST} of a unit to train on"
        )
    card = ModelCard(
        format_version=FORMAT_VERSION,
        features_version=features.VERSION,
        version=hash_of(parts),
        features=feature_names(),
        seed=options.seed,
        parts=cards,
        device_features=device_features,
    )
    return LearnedModel(card, parts)


def _parameters(table: Table, options: TrainingOptions) -> dict[str, Any]:
    return {
        "tree_method": "hist",
        "max_depth": options.depth,
        "eta": options.rate,
        "subsample": 0.8,
        "colsample_bytree": 0.5,
        "min_child_weight": options.least_weight,
        "monotone_constraints": table.monotone,
        "seed": options.seed,
        "nthread": 1,
    }


def _raw(booster: Any) -> bytes:
    return bytes(booster.save_raw("ubj"))
