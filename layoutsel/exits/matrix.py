"""Observations of a multi-exit network on data: the score and prediction of every exit."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, kw_only=True, eq=False)
class ExitMatrix:
    """Scores and predictions of N samples at E exits, the final one last."""

    exits: tuple[str, ...]
    """Names of the exits."""
    score: str
    """Entry of :data:`layoutsel.exits.scores.SCORES`."""
    scores: np.ndarray
    """Scores, (N, E), float64 within [0, 1]; NaN counts as unsure."""
    predictions: np.ndarray
    """Predicted classes, (N, E), int64."""
    labels: np.ndarray | None = None
    """True classes, (N,), int64; None if unknown."""
