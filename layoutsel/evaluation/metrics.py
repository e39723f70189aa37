"""Metrics of predictions: shares within an error, mean error, rank correlation, best choices."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, kw_only=True)
class Metrics:
    """Metrics of one unit's held-out predictions; shares and errors as fractions."""

    samples: int
    """Number of predictions."""
    within_10: float
    """Share within 10 % of the measured time."""
    within_20: float
    """Share within 20 % of the measured time."""
    mape: float
    """Mean of |predicted - measured| / measured."""
    spearman: float | None
    """Rank correlation of predicted and measured times; None if all are equal."""
    top1: float | None
    """Share of sub-graphs whose predicted best candidate is the measured best.

    Counts sub-graphs with several candidates; None if there are none.
    """
    top1_loss: float | None
    """Mean relative loss of the predicted best against the measured best of these sub-graphs."""


def metrics(predicted: np.ndarray, measured: np.ndarray, choices: Sequence[object]) -> Metrics:
    """Compute the metrics of predicted times.

    Parameters
    ----------
    predicted, measured
        (samples,) natural logarithms of times.
    choices
        (samples,) equal for candidates of the same sub-graph.
    """
    from scipy.stats import spearmanr

    off = np.abs(np.expm1(predicted - measured))
    hits, losses = _best_choices(predicted, measured, choices)
    correlation = float(spearmanr(predicted, measured).statistic) if len(measured) > 1 else np.nan
    return Metrics(
        samples=len(measured),
        within_10=_mean(off <= 0.10),
        within_20=_mean(off <= 0.20),
        mape=_mean(off),
        spearman=round(correlation, 4) if np.isfinite(correlation) else None,
        top1=_mean(hits) if hits else None,
        top1_loss=_mean(losses) if losses else None,
    )


def _best_choices(
    predicted: np.ndarray, measured: np.ndarray, choices: Sequence[object]
) -> tuple[list[bool], list[float]]:
    members: dict[object, list[int]] = {}
    for position, choice in enumerate(choices):
        members.setdefault(choice, []).append(position)
    hits, losses = [], []
    for positions in members.values():
        if len(positions) > 1:
            chosen = min(positions, key=lambda position: predicted[position])
            best = min(positions, key=lambda position: measured[position])
            hits.append(bool(measured[chosen] == measured[best]))
            losses.append(float(np.expm1(measured[chosen] - measured[best])))
    return hits, losses


def _mean(values: Sequence[float] | np.ndarray) -> float:
    return round(float(np.mean(values)), 4) if len(values) else 0.0
