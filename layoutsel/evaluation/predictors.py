"""Predictors to compare: boosted trees and simpler baselines, in logarithms of microseconds."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from layoutsel.cost import features
from layoutsel.cost.training import Table, TrainingOptions, fit_point, predict_point

Predict = Callable[[Table], np.ndarray]
"""Function that predicts the targets of a table."""
Fit = Callable[[Table], Predict]
"""Function that learns a predictor from a table."""

_FLOPS = features.NAMES.index("flops")
"""Column of the logarithm of FLOPs."""
LEARNED = "xgboost"
"""Name of the learned cost model."""


def boosted_trees(options: TrainingOptions) -> Fit:
    """Make the learning function of the learned cost model."""

    def fit(table: Table) -> Predict:
        model = fit_point(table, options)
        return lambda asked: predict_point(model, asked)

    return fit


def roofline(_table: Table) -> Predict:
    """Predict the roofline itself, without learning."""
    return lambda asked: asked.margins.astype(float)


def flops_regression(table: Table) -> Predict:
    """Fit a straight line through log(time) over log(FLOPs)."""
    inputs = table.rows[:, _FLOPS].astype(float)
    slope, offset = np.polyfit(inputs, table.targets, 1, w=np.sqrt(table.weights))
    return lambda asked: offset + slope * asked.rows[:, _FLOPS].astype(float)


def nearest_neighbour(table: Table) -> Predict:
    """Predict the roofline ratio of the sample with the nearest standardised features."""
    from scipy.spatial import cKDTree

    center, scale = table.rows.mean(axis=0), table.rows.std(axis=0)
    scale = np.where(scale > 0, scale, 1.0)
    tree = cKDTree((table.rows - center) / scale)
    offsets = table.targets - table.margins

    def predict(asked: Table) -> np.ndarray:
        _, nearest = tree.query((asked.rows - center) / scale)
        return asked.margins + offsets[nearest]

    return predict


BASELINES: Mapping[str, Fit] = {
    "roofline": roofline,
    "flops_regression": flops_regression,
    "nearest_neighbour": nearest_neighbour,
}
"""Learning functions of the baselines, by name."""
