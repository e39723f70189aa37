"""Leave one model out: train on everything else, predict its candidates, and plan it by the predictions.

A sample is held out if its workload occurs in the model, and left out of the training if its features equal those of
a held-out one: no split sees a shape that it is asked about.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from layoutsel.cost import boundary_features
from layoutsel.cost.model import Cost, TensorSpec
from layoutsel.cost.roofline import RooflineCost
from layoutsel.cost.samples import Dataset, MachineProfile, RecordedModel, Sample
from layoutsel.cost.training import Options, Table, boundary_table, subgraph_table
from layoutsel.evaluation.metrics import Metrics, metrics
from layoutsel.evaluation.predictors import BASELINES, LEARNED, Fit, boosted_trees
from layoutsel.evaluation.regret import (
    Key,
    MeasuredBoundaries,
    PriceBoundary,
    Regret,
    measured_costs,
    model_regret,
)
from tvm_passes.errors import LayoutselError

SCHEMA_VERSION = 1

OnModel = Callable[[str, int, int], None]
"""(model, number from 1, how many)."""


@dataclass(frozen=True, kw_only=True)
class HeldOut:
    """Predictions of one model's candidates on one unit, by a predictor that has not seen them."""

    samples: tuple[Sample, ...]
    predicted: Mapping[str, np.ndarray]
    """Logarithms of microseconds, by predictor."""


@dataclass(frozen=True)
class UnitData:
    """All samples of one unit as numbers."""

    samples: tuple[Sample, ...]
    table: Table


def split(data: UnitData, model: RecordedModel) -> tuple[np.ndarray, np.ndarray]:
    """Which samples are held out, and which may be learned from."""
    mine = model.keys
    held = np.array(
        [
            sample.workload.key in mine and sample.provenance.profile.name == model.machine
            for sample in data.samples
        ]
    )
    seen = {data.table.rows[position].tobytes() for position in np.flatnonzero(held)}
    learned = np.array(
        [
            sample.workload.key not in mine and row.tobytes() not in seen
            for sample, row in zip(data.samples, data.table.rows, strict=True)
        ]
    )
    return held, learned


def evaluate(
    dataset: Dataset,
    options: Options | None = None,
    on_model: OnModel = lambda _name, _number, _count: None,
) -> dict[str, Any]:
    """Judge the learned cost model on every recorded model of `dataset`; the document that the command prints.

    Raises
    ------
    LayoutselError
        If the data set records no model with samples.
    """
    options = options or Options()
    units = _unit_data(dataset)
    models = [model for model in dataset.models if _is_covered(model, units)]
    if not models:
        raise LayoutselError(
            "the data set records no model with measured candidates: nothing to evaluate"
        )
    fits: Mapping[str, Fit] = {LEARNED: boosted_trees(options), **BASELINES}
    held: dict[str, dict[str, HeldOut]] = {}
    for number, model in enumerate(models, start=1):
        on_model(model.name, number, len(models))
        held[model.name] = {unit: _hold_out(data, model, fits) for unit, data in units.items()}
    regrets = [_regret(dataset, model, models, units, held, options) for model in models]
    return {
        "schema_version": SCHEMA_VERSION,
        "units": {unit: asdict(_pooled(held, unit, LEARNED)) for unit in units},
        "baselines": {
            name: {unit: asdict(_pooled(held, unit, name)) for unit in units} for name in BASELINES
        },
        "regret": _mean_regret(regrets),
        "models": {
            model.name: {
                "units": {
                    unit: asdict(_metrics([found], LEARNED))
                    for unit, found in held[model.name].items()
                },
                "regret": asdict(regret),
            }
            for model, regret in zip(models, regrets, strict=True)
        },
        "samples": len(dataset.samples),
    }


def _unit_data(dataset: Dataset) -> dict[str, UnitData]:
    units = sorted({sample.decision.unit for sample in dataset.samples})
    found = {}
    for unit in units:
        samples = tuple(sample for sample in dataset.samples if sample.decision.unit == unit)
        found[unit] = UnitData(samples, subgraph_table(samples))
    return found


def _is_covered(model: RecordedModel, units: Mapping[str, UnitData]) -> bool:
    known = {
        sample.workload.key
        for data in units.values()
        for sample in data.samples
        if sample.provenance.profile.name == model.machine
    }
    return model.keys <= known


def _hold_out(data: UnitData, model: RecordedModel, fits: Mapping[str, Fit]) -> HeldOut:
    held, learned = split(data, model)
    train, asked = data.table[learned], data.table[held]
    return HeldOut(
        samples=tuple(s for s, is_held in zip(data.samples, held, strict=True) if is_held),
        predicted={name: fit(train)(asked) for name, fit in fits.items()},
    )


def _metrics(found: Sequence[HeldOut], predictor: str) -> Metrics:
    predicted = np.concatenate([one.predicted[predictor] for one in found])
    samples = [(n, sample) for n, one in enumerate(found) for sample in one.samples]
    measured = np.log([sample.us for _, sample in samples])
    return metrics(predicted, measured, [(n, sample.workload.key) for n, sample in samples])


def _pooled(held: Mapping[str, Mapping[str, HeldOut]], unit: str, predictor: str) -> Metrics:
    return _metrics([by_unit[unit] for by_unit in held.values()], predictor)


def _mean_regret(regrets: Sequence[Regret]) -> dict[str, float]:
    names = ("cold", "hybrid", "random", "score", "roofline", "hybrid_measured")
    means = {n: round(float(np.mean([getattr(r, n) for r in regrets])), 5) for n in names}
    worst = {
        f"{name}_worst": max(getattr(regret, name) for regret in regrets)
        for name in ("cold", "hybrid")
    }
    return {**means, **worst}


def _regret(
    dataset: Dataset,
    model: RecordedModel,
    models: Sequence[RecordedModel],
    units: Mapping[str, UnitData],
    held: Mapping[str, Mapping[str, HeldOut]],
    options: Options,
) -> Regret:
    mine = [s for s in dataset.boundaries if s.provenance.profile.name == model.machine]
    others = {
        unit: [held[other.name][unit] for other in models if other.name != model.name]
        for unit in units
    }
    learned: dict[Key, Cost] = {}
    truth: dict[Key, Cost] = {}
    rooflines: dict[Key, Cost] = {}
    for unit, found in held[model.name].items():
        learned |= _learned_costs(found, others[unit])
        truth |= measured_costs(found.samples)
        rooflines |= {
            (s.workload.key, s.decision): _roofline(s.provenance.profile, s) for s in found.samples
        }
    return model_regret(
        model,
        truth,
        MeasuredBoundaries(mine).price,
        learned,
        _learned_boundaries(dataset, model, options),
        rooflines,
        seed=options.seed,
    )


def _roofline(profile: MachineProfile, sample: Sample) -> Cost:
    return RooflineCost(peaks=profile.peaks).estimate(sample.workload, sample.decision)


def _learned_costs(found: HeldOut, others: Sequence[HeldOut]) -> dict[Key, Cost]:
    """Predictions, as uncertain as other models' held-out predictions were wrong: by operator and kind of decision."""
    errors: dict[tuple[str, str], list[float]] = {}
    for other in others:
        for sample, value in zip(other.samples, other.predicted[LEARNED], strict=True):
            errors.setdefault(_kind(sample), []).append(abs(float(value) - np.log(sample.us)))
    everything = [error for some in errors.values() for error in some] or [0.1]
    costs = {}
    for sample, value in zip(found.samples, found.predicted[LEARNED], strict=True):
        mine = errors.get(_kind(sample), [])
        half = float(np.median(mine if len(mine) >= 10 else everything))
        us = float(np.exp(value))
        costs[sample.workload.key, sample.decision] = Cost(
            us=us, spread_us=us * half, source="learned"
        )
    return costs


def _kind(sample: Sample) -> tuple[str, str]:
    return sample.workload.operator, str(sample.decision)


def _learned_boundaries(dataset: Dataset, model: RecordedModel, options: Options) -> PriceBoundary:
    """Boundaries by a booster that has seen no tensor of the model's shapes."""
    from layoutsel.cost.training import fit_point, predict_point

    shapes = {tensor.shape for tensor in model.tensors}
    table = boundary_table([s for s in dataset.boundaries if s.tensor.shape not in shapes])
    booster = fit_point(table, options)
    profile = next(
        s.provenance.profile for s in dataset.samples if s.provenance.profile.name == model.machine
    )

    def price(kind: str, tensor: TensorSpec, source: str, destination: str) -> float:
        if kind == "crossing" and "host" in (source, destination):
            return 0.0
        asked = boundary_features.AskedBoundary(kind, source, destination, tensor, profile)
        rows, margins = boundary_features.feature_table([asked])
        one = Table(rows, margins, margins, margins, ("",), "")
        return float(np.exp(predict_point(booster, one)[0]))

    return price
