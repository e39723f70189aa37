"""Stability of plans against chance: other seeds and other noise in the training data."""

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
"""Standard deviation of a normal distribution per half interquartile range."""


@dataclass(frozen=True, kw_only=True)
class Stability:
    """Variation of the measured times of one model's plans, each from another cost model."""

    plans: int
    """Number of plans of the model that were compared."""
    spread: float
    """Slowest over fastest time, minus one."""
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
    """Plan a model repeatedly with cost models of other seeds and redrawn times.

    Parameters
    ----------
    model
        Model to plan.
    parts
        Training table, table of candidates and the keys of its rows, by unit.
    real
        Planning problem with measured costs, which evaluates the plans.
    boundary
        Prices of boundaries.
    options
        Training options; seeds count up from theirs.
    plans
        Number of plans.
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
