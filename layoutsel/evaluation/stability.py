"""True if plans depend on chance: other seeds, and other noise in the measurements that were learned from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from layoutsel.core.workload import Cost
from layoutsel.cost.samples import RecordedModel
from layoutsel.cost.training import Table, TrainingOptions, fit_point, predict_point
from layoutsel.evaluation.regret import Key, PriceBoundary, recorded_problem
from layoutsel.planning.problem import PlanningProblem
from layoutsel.planning.solve import solve

_TO_SIGMA = 1 / 0.6745


@dataclass(frozen=True, kw_only=True)
class Stability:
    """Measured times of one model's plans, each by a cost model of its own."""

    plans: int
    spread: float
    """Slowest over fastest, less one."""
    deviation: float
    """Standard deviation, as a share of the mean."""


def disturbed(table: Table, seed: int) -> Table:
    """Copy a table with each time redrawn within its spread."""
    rng = np.random.default_rng(seed)
    noise = rng.standard_normal(len(table)) * table.spreads * _TO_SIGMA
    return replace(table, targets=table.targets + noise)


def plan_stability(
    model: RecordedModel,
    parts: Mapping[str, tuple[Table, Table, tuple[Key, ...]]],
    real: PlanningProblem,
    boundary: PriceBoundary,
    options: TrainingOptions,
    plans: int,
) -> Stability:
    """Plan `model` again and again by cost models that were trained with other seeds on redrawn times.

    Parameters
    ----------
    model
        What is planned.
    parts
        By unit: what may be learned from, what is asked, and which candidate each row of that is.
    real
        The problem with measured costs, by which plans are judged.
    boundary
        Prices of boundaries.
    options
        How boosters are grown; the seed is counted up from there.
    plans
        How many.
    """
    times = []
    for number in range(plans):
        seed = options.seed + number
        costs: dict[Key, Cost] = {}
        for train, asked, keys in parts.values():
            booster = fit_point(disturbed(train, seed), replace(options, seed=seed))
            for key, value in zip(keys, predict_point(booster, asked), strict=True):
                costs[key] = Cost.timed(float(np.exp(value)), 0.0, "learned")
        problem = recorded_problem(model, _lookup(costs), boundary)
        times.append(real.cost(solve(problem).decisions).total_us)
    return Stability(
        plans=plans,
        spread=round(max(times) / min(times) - 1, 5),
        deviation=round(float(np.std(times) / np.mean(times)), 5),
    )


def _lookup(costs: Mapping[Key, Cost]) -> Callable[..., Cost | None]:
    return lambda node, decision: costs.get((node.key, decision))
