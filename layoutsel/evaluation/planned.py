"""A held-out model with true and predicted costs: losses and stability of its plans."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from layoutsel.core.precision import F32, PrecisionMode, precision_mode
from layoutsel.core.workload import BoundaryTensor, Cost
from layoutsel.cost import boundary_features
from layoutsel.cost.model import BoundaryPart
from layoutsel.cost.place import HOST
from layoutsel.cost.roofline import RooflineCost
from layoutsel.cost.samples import Dataset, MachineProfile, RecordedModel, Sample, joins_device
from layoutsel.cost.training import (
    FEWEST,
    Table,
    TrainingOptions,
    boundary_table,
    fit_point,
    is_copy,
    predict_point,
)
from layoutsel.evaluation.predictors import LEARNED
from layoutsel.evaluation.regret import (
    Key,
    MeasuredBoundaries,
    PriceBoundary,
    Regret,
    measured_costs,
    model_regret,
    recorded_problem,
)
from layoutsel.evaluation.stability import Stability, plan_stability

_FEWEST = 10
"""Minimum number of other models' errors of one kind for an estimate of their size."""


@dataclass(frozen=True, kw_only=True)
class HeldOut:
    """Predictions for one model's candidates on one unit, none of which was learned from."""

    samples: tuple[Sample, ...]
    """Measured candidates."""
    predicted: Mapping[str, np.ndarray]
    """(samples,) natural logarithms of microseconds, by predictor."""

    def only(self, precision: str) -> HeldOut:
        """Predictions for candidates of one precision."""
        kept = np.array([s.decision.precision == precision for s in self.samples], dtype=bool)
        return HeldOut(
            samples=tuple(s for s, keep in zip(self.samples, kept, strict=True) if keep),
            predicted={name: values[kept] for name, values in self.predicted.items()},
        )


@dataclass(frozen=True)
class PlannedModel:
    """A held-out model with the data for its plans."""

    dataset: Dataset
    """All samples."""
    model: RecordedModel
    """The model to plan."""
    held: Mapping[str, HeldOut]
    """Predictions for the model, by unit."""
    others: Mapping[str, Sequence[HeldOut]]
    """Predictions for other models, by unit; their errors are the uncertainty."""
    options: TrainingOptions
    """Training options."""

    @cached_property
    def truth(self) -> dict[Key, Cost]:
        """Measured costs of the candidates."""
        return {k: v for one in self.held.values() for k, v in measured_costs(one.samples).items()}

    @cached_property
    def learned(self) -> dict[Key, Cost]:
        """Predicted costs of the candidates, with their uncertainty."""
        return {
            key: cost
            for unit, one in self.held.items()
            for key, cost in learned_costs(one, self.others[unit]).items()
        }

    @cached_property
    def rooflines(self) -> dict[Key, Cost]:
        """Roofline costs of the candidates."""
        return {
            (sample.workload.key, sample.decision): RooflineCost.of(
                sample.provenance.profile
            ).estimate(sample.workload, sample.decision)
            for one in self.held.values()
            for sample in one.samples
        }

    @cached_property
    def measured_boundary(self) -> PriceBoundary:
        """Boundary prices from measurements on the model's machine."""
        mine = [
            s for s in self.dataset.boundaries if s.provenance.profile.name == self.model.machine
        ]
        return MeasuredBoundaries(mine).price

    @cached_property
    def learned_boundary(self) -> PriceBoundary:
        """Boundary prices of a booster trained without tensors of the model's shapes.

        The roofline replaces a booster that would have too few samples.
        """
        shapes = {tensor.shape for tensor in self.model.tensors}
        others = [s for s in self.dataset.boundaries if s.tensor.shape not in shapes]
        table = boundary_table([sample for sample in others if not is_copy(sample)])
        profile = self._profile
        roofline = RooflineCost.of(profile)
        booster = fit_point(table, self.options) if len(table) >= FEWEST else None

        def price(kind: str, tensor: BoundaryTensor, source: str, destination: str) -> float:
            if kind == "crossing" and HOST in (source, destination):
                return 0.0
            is_copied = kind == "crossing" and joins_device(profile, source, destination)
            if booster is None or is_copied:
                return roofline.step_us(BoundaryPart(kind, tensor, source, destination))
            asked = boundary_features.AskedBoundary(kind, source, destination, tensor, profile)
            rows, margins = boundary_features.feature_table([asked])
            one = Table(rows, margins, margins, margins, margins, ("",), "")
            return float(np.exp(predict_point(booster, one)[0]))

        return price

    @property
    def _profile(self) -> MachineProfile:
        return next(s.provenance.profile for one in self.held.values() for s in one.samples)

    def regret(self, mode: str = F32) -> Regret:
        """Losses of the model's plans in one precision mode."""
        asked = precision_mode(mode)
        return model_regret(
            _narrowed(self.model, asked),
            self.truth,
            self.measured_boundary,
            self.learned,
            self.learned_boundary,
            self.rooflines,
            measure_budget_s=asked.measure_budget_s,
            seed=self.options.seed,
        )

    def stability(
        self, parts: Mapping[str, tuple[Table, Table, tuple[Key, ...]]], plans: int
    ) -> Stability:
        """Variation of plans from cost models of other seeds and redrawn times."""
        real = recorded_problem(
            self.model,
            lambda node, decision: self.truth.get((node.key, decision)),
            self.measured_boundary,
        )
        return plan_stability(self.model, parts, real, self.learned_boundary, self.options, plans)


def _narrowed(model: RecordedModel, mode: PrecisionMode) -> RecordedModel:
    """Copy `model` with only the candidates that `mode` offers."""
    nodes = tuple(
        replace(node, offers=tuple(o for o in node.offers if mode.offers(o.decision.precision)))
        for node in model.nodes
    )
    return replace(model, nodes=nodes)


def learned_costs(found: HeldOut, others: Sequence[HeldOut]) -> dict[Key, Cost]:
    """Predicted costs; the spread is the median error of other models' similar candidates."""
    errors: dict[tuple[str, str], list[float]] = {}
    for other in others:
        for sample, value in zip(other.samples, other.predicted[LEARNED], strict=True):
            errors.setdefault(_kind(sample), []).append(abs(float(value) - np.log(sample.us)))
    everything = [error for some in errors.values() for error in some] or [0.1]
    costs = {}
    for sample, value in zip(found.samples, found.predicted[LEARNED], strict=True):
        mine = errors.get(_kind(sample), [])
        half = float(np.median(mine if len(mine) >= _FEWEST else everything))
        us = float(np.exp(value))
        costs[sample.workload.key, sample.decision] = Cost.timed(us, us * half, "learned")
    return costs


def _kind(sample: Sample) -> tuple[str, str]:
    return sample.workload.operator, str(sample.decision)
