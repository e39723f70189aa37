"""Leave-families-out evaluation: train on all else, predict the models of some families, plan them.

Families are left out in a few groups. A sample is held out if its workload occurs in a model of the
group. Samples of any machine with the shapes or the features of a held-out one are excluded from
training. No shape is thus both learned and predicted, nor are networks of one family.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np

from layoutsel.core.precision import F32, all_modes
from layoutsel.cost.samples import Dataset, RecordedModel
from layoutsel.cost.training import Table, TrainingOptions
from layoutsel.evaluation.holding_out import (
    UnitData,
    grouped,
    hold_out,
    plain_name,
    samples_of,
    samples_without,
    unit_data,
)
from layoutsel.evaluation.machines import machine_transfer
from layoutsel.evaluation.metrics import Metrics, metrics
from layoutsel.evaluation.planned import HeldOut, PlannedModel
from layoutsel.evaluation.predictors import BASELINES, LEARNED, Fit, boosted_trees
from layoutsel.evaluation.regret import Key, Regret
from tvm_passes.errors import LayoutselError

SCHEMA_VERSION = 1
"""Version of the document of results."""

OnGroup = Callable[[str, int, int], None]
"""Function that receives a group's models, its number from 1, and the number of groups."""


def evaluate(
    dataset: Dataset,
    options: TrainingOptions | None = None,
    on_group: OnGroup = lambda _name, _number, _count: None,
    stability_plans: int = 0,
    only: Sequence[str] = (),
) -> dict[str, Any]:
    """Evaluate the learned cost model on every recorded model.

    Parameters
    ----------
    dataset
        Samples and recorded models.
    options
        Training options; the defaults if None.
    on_group
        Called before each group of models.
    stability_plans
        Number of further plans of each model, from cost models of other seeds and redrawn times.
    only
        Names of the models to evaluate; all if empty. Models of other groups are learned from.

    Returns
    -------
    dict
        Document of the results, as the command prints it.

    Raises
    ------
    LayoutselError
        If no recorded model has samples, or too few samples remain without a model.
    """
    options = options or TrainingOptions()
    units = unit_data(dataset)
    unknown = set(only) - {model.name for model in dataset.models}
    if unknown:
        known = ", ".join(model.name for model in dataset.models)
        raise LayoutselError(
            f"the data set records no model {unknown.pop()!r}; expected one of {known}"
        )
    covered = _distinct(model for model in dataset.models if _is_covered(model, units))
    models = [model for model in covered if not only or plain_name(model) in only]
    if not models:
        raise LayoutselError(
            "the data set records no model with measured candidates: nothing to evaluate"
        )
    in_models = {(model.machine, key) for model in models for key in model.keys}
    units = {
        unit: data
        for unit, data in units.items()
        if any((s.provenance.profile.name, s.workload.key) in in_models for s in data.samples)
    }
    fits: Mapping[str, Fit] = {LEARNED: boosted_trees(options), **BASELINES}
    held: dict[str, dict[str, HeldOut]] = {}
    groups = [group for group in grouped(covered) if any(model in models for model in group)]
    for number, group in enumerate(groups, start=1):
        on_group(", ".join(model.name for model in group), number, len(groups))
        for unit, data in units.items():
            for name, predicted in hold_out(data, group, fits).items():
                held.setdefault(name, {})[unit] = predicted
    planned = [
        PlannedModel(dataset, model, held[model.name], _others(held, model), options)
        for model in models
    ]
    regrets = {mode: [one.regret(mode) for one in planned] for mode in _modes(models)}
    stability = {
        one.model.name: asdict(
            one.stability(_parts(units, one.model, _group_of(groups, one.model)), stability_plans)
        )
        for one in planned
        if stability_plans
    }
    return {
        "schema_version": SCHEMA_VERSION,
        "units": {unit: asdict(_pooled(held, unit, LEARNED)) for unit in units},
        "baselines": {
            name: {unit: asdict(_pooled(held, unit, name)) for unit in units} for name in BASELINES
        },
        "precisions": _by_precision(held, units),
        "regret": _mean_regret(regrets[F32]),
        "regrets": {mode: _mean_regret(found) for mode, found in regrets.items()},
        "whole_models": {mode: _whole_models(found) for mode, found in regrets.items()},
        "models": {
            model.name: {
                "units": {
                    unit: asdict(_metrics([found], LEARNED))
                    for unit, found in held[model.name].items()
                    if found.samples
                },
                "regret": asdict(regrets[F32][number]),
                "regrets": {mode: asdict(found[number]) for mode, found in regrets.items()},
            }
            for number, model in enumerate(models)
        },
        "stability": stability,
        "machines": machine_transfer(
            {unit: (data.samples, data.table) for unit, data in units.items()}, models, options
        ),
        "samples": len(dataset.samples),
    }


def _distinct(models: Iterable[RecordedModel]) -> list[RecordedModel]:
    """Last recording of each model and machine, with unique names."""
    found = {(model.name, model.machine): model for model in models}
    machines = Counter(name for name, _ in found)
    return [
        replace(model, name=f"{name} on {machine}") if machines[name] > 1 else model
        for (name, machine), model in found.items()
    ]


def _is_covered(model: RecordedModel, units: Mapping[str, UnitData]) -> bool:
    known = {
        sample.workload.key
        for data in units.values()
        for sample in data.samples
        if sample.provenance.profile.name == model.machine
    }
    return model.keys <= known


def _metrics(found: Sequence[HeldOut], predictor: str) -> Metrics:
    predicted = np.concatenate([one.predicted[predictor] for one in found])
    samples = [(n, sample) for n, one in enumerate(found) for sample in one.samples]
    measured = np.log([sample.us for _, sample in samples])
    return metrics(predicted, measured, [(n, sample.workload.key) for n, sample in samples])


def _pooled(held: Mapping[str, Mapping[str, HeldOut]], unit: str, predictor: str) -> Metrics:
    return _metrics([by_unit[unit] for by_unit in held.values()], predictor)


def _modes(models: Sequence[RecordedModel]) -> list[str]:
    """Mode f32, and the modes with recorded candidates of their own precisions."""
    recorded = {
        offer.decision.precision for m in models for node in m.nodes for offer in node.offers
    }
    return [
        mode.name
        for mode in all_modes().values()
        if not mode.limits and (mode.only_f32 or recorded & (set(mode.precisions) - {F32}))
    ]


def _by_precision(
    held: Mapping[str, Mapping[str, HeldOut]], units: Iterable[str]
) -> dict[str, dict[str, dict[str, Any]]]:
    """Metrics of each unit by precision."""
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for unit in units:
        parts = [by_unit[unit] for by_unit in held.values()]
        precisions = {sample.decision.precision for part in parts for sample in part.samples}
        found[unit] = {
            precision: asdict(_metrics([part.only(precision) for part in parts], LEARNED))
            for precision in sorted(precisions)
        }
    return found


def _mean_regret(regrets: Sequence[Regret]) -> dict[str, float]:
    names = ("cold", "auto", "hybrid", "random", "score", "roofline")
    shares = ("auto_measured", "hybrid_measured")
    means = {
        n: round(float(np.mean([getattr(r, n) for r in regrets])), 5) for n in (*names, *shares)
    }
    worst = {
        f"{name}_worst": max(getattr(regret, name) for regret in regrets)
        for name in ("cold", "auto", "hybrid")
    }
    return {**means, **worst}


def _whole_models(regrets: Sequence[Regret]) -> dict[str, float]:
    """Shares of models whose plan's sum of costs is predicted within 5 and 10 %, and mean error."""
    off = np.abs([regret.predicted - 1 for regret in regrets])
    shares = {f"within_{most}": float(np.mean(off <= most / 100)) for most in (5, 10)}
    return {name: round(value, 4) for name, value in {**shares, "mape": off.mean()}.items()}


def _others(
    held: Mapping[str, Mapping[str, HeldOut]], model: RecordedModel
) -> dict[str, list[HeldOut]]:
    """Held-out predictions for the other models, by unit."""
    others: dict[str, list[HeldOut]] = {}
    for name, by_unit in held.items():
        for unit, found in by_unit.items():
            others.setdefault(unit, []).extend([found] if name != model.name else [])
    return others


def _parts(
    units: Mapping[str, UnitData], model: RecordedModel, group: Sequence[RecordedModel]
) -> dict[str, tuple[Table, Table, tuple[Key, ...]]]:
    """Training table, table of held-out candidates and the keys of its rows, by unit."""
    parts = {}
    for unit, data in units.items():
        held, learned = samples_of(data, model), samples_without(data, group)
        keys = tuple(
            (sample.workload.key, sample.decision)
            for sample, is_held in zip(data.samples, held, strict=True)
            if is_held
        )
        parts[unit] = (data.table[learned], data.table[held], keys)
    return parts


def _group_of(
    groups: Sequence[Sequence[RecordedModel]], model: RecordedModel
) -> Sequence[RecordedModel]:
    return next(group for group in groups if model in group)
