"""Samples that are held out of the training with a group of models, and the rest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from layoutsel.core.workload import Workload
from layoutsel.cost.samples import Dataset, RecordedModel, Sample
from layoutsel.cost.training import FEWEST, Table, subgraph_table
from layoutsel.evaluation.planned import HeldOut
from layoutsel.evaluation.predictors import Fit
from layoutsel.zoo.families import families_of
from tvm_passes.errors import LayoutselError

GROUPS = 12
"""Maximum number of groups of families that are left out, one after the other."""


@dataclass(frozen=True)
class UnitData:
    """Samples of one unit, as objects and as the arrays that training takes."""

    samples: tuple[Sample, ...]
    """Measured candidates of the unit."""
    table: Table
    """Features and targets of the samples, in the same order."""


def unit_data(dataset: Dataset) -> dict[str, UnitData]:
    """Samples by unit."""
    units = sorted({sample.decision.unit for sample in dataset.samples})
    found = {}
    for unit in units:
        samples = tuple(sample for sample in dataset.samples if sample.decision.unit == unit)
        found[unit] = UnitData(samples, subgraph_table(samples))
    return found


def grouped(models: Sequence[RecordedModel]) -> list[list[RecordedModel]]:
    """Divide models into at most :data:`GROUPS` groups; related ones are in the same group.

    Models are related if they share a family, such as that of a backbone.
    """
    related = list[tuple[set[str], list[RecordedModel]]]()
    for model in models:
        families, members = set(families_of(plain_name(model))), [model]
        kin = [part for part in related if part[0] & families]
        for part in kin:
            families |= part[0]
            members = [*part[1], *members]
            related.remove(part)
        related.append((families, members))
    groups: list[list[RecordedModel]] = [[] for _ in range(min(GROUPS, len(related)))]
    for _, members in sorted(related, key=lambda part: -len(part[1])):
        min(groups, key=len).extend(members)
    return groups


def plain_name(model: RecordedModel) -> str:
    """Return a model's name without that of its machine."""
    return model.name.partition(" on ")[0]


def samples_of(data: UnitData, model: RecordedModel) -> np.ndarray:
    """Mask (samples,) of the samples of `model` on its machine."""
    mine = model.keys
    return np.array(
        [
            sample.workload.key in mine and sample.provenance.profile.name == model.machine
            for sample in data.samples
        ]
    )


def samples_without(data: UnitData, models: Sequence[RecordedModel]) -> np.ndarray:
    """Mask (samples,) of the samples without any shape or features of `models`."""
    held = np.any([samples_of(data, model) for model in models], axis=0)
    seen = {data.table.rows[position].tobytes() for position in np.flatnonzero(held)}
    keys = {key for model in models for key in model.keys}
    seen_shapes = {
        _shapes(sample.workload) for sample in data.samples if sample.workload.key in keys
    }
    return np.array(
        [
            _shapes(sample.workload) not in seen_shapes and row.tobytes() not in seen
            for sample, row in zip(data.samples, data.table.rows, strict=True)
        ]
    )


def _shapes(work: Workload) -> tuple[object, ...]:
    """All properties of a workload except its hash, which may differ for equal shapes."""
    return work.operators, work.inputs, work.weights, work.outputs, *sorted(work.attributes.items())


def hold_out(
    data: UnitData, group: Sequence[RecordedModel], fits: Mapping[str, Fit]
) -> dict[str, HeldOut]:
    """Predict the samples of each model of `group` from those without the group, by model."""
    learned = samples_without(data, group)
    if learned.sum() < FEWEST:
        raise LayoutselError(
            f"without {', '.join(model.name for model in group)} there are {learned.sum()} samples "
            f"of {data.samples[0].decision.unit} to learn from; expected at least {FEWEST}: "
            "profile other models too, or a sweep"
        )
    fitted = {name: fit(data.table[learned]) for name, fit in fits.items()}
    found = {}
    for model in group:
        held = samples_of(data, model)
        found[model.name] = HeldOut(
            samples=tuple(s for s, is_held in zip(data.samples, held, strict=True) if is_held),
            predicted={name: predict(data.table[held]) for name, predict in fitted.items()},
        )
    return found
