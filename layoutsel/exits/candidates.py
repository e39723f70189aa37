"""Candidate thresholds of the exits, and the samples that each of them makes sure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from layoutsel.exits.matrix import ExitMatrix
from layoutsel.exits.policy import patient


@dataclass(frozen=True, kw_only=True, eq=False)
class ThresholdCandidates:
    """Candidate thresholds of n exits from strict to loose, and groups of equal samples.

    Samples with equal levels and equal misleading exits are one group: no choice of candidates
    distinguishes them.
    """

    thresholds: tuple[tuple[float | None, ...], ...]
    """Candidates of each exit; None, if allowed, switches the exit off and comes first."""
    levels: np.ndarray
    """First candidate that makes each exit sure, (groups, n); the number of candidates if none."""
    misleading: np.ndarray
    """True for exits that are wrong where the final exit is right, (groups, n)."""
    weights: np.ndarray
    """Number of samples of each group, float64, (groups,)."""
    complete: bool
    """False if candidates were left out that could be part of the best choice."""

    @property
    def sizes(self) -> tuple[int, ...]:
        """Number of candidates of each exit."""
        return tuple(map(len, self.thresholds))


def candidates(
    matrix: ExitMatrix,
    most_losses: int,
    *,
    active: Sequence[bool],
    thin: Sequence[bool],
    patience: int | None,
    most: int,
) -> ThresholdCandidates | None:
    """Find the candidates that lose at most `most_losses` samples at their exit alone.

    Parameters
    ----------
    matrix
        Observations.
    most_losses
        Largest number of samples that may lose.
    active
        True for exits that may answer. With patience, these must have a threshold.
    thin
        True for exits where only the loosest of the candidates with equal losses is of use.
    patience
        Number of exits in a row with equal predictions that make the last of them sure.
    most
        Largest number of candidates of an exit; if exceeded, evenly spaced ones are taken.

    Returns
    -------
    ThresholdCandidates or None
        None if an active exit has no candidate but must have one.
    """
    scores, misleading = matrix.scores[:, :-1], matrix.misleading
    if patience is not None:
        # A score of 1 reaches every threshold.
        scores = np.where(patient(matrix, list(active), patience), 1.0, scores)
    thresholds, levels, complete = [], [], True
    for i, on in enumerate(active):
        values: list[float | None] = [] if on and patience is not None else [None]
        found = np.zeros(0)
        if on:
            found, whole = _of_exit(
                scores[:, i], matrix.misleading[:, i], most_losses, thin[i], most
            )
            complete &= whole
            if patience is not None and not (scores[:, i] == 1).any():
                found = np.concatenate([[1.0], found])  # sure by patience alone
        levels.append(len(values) + np.searchsorted(-found, -np.nan_to_num(scores[:, i], nan=-1.0)))
        values += between(found, scores[:, i])
        if not values:
            return None
        thresholds.append(tuple(values))
    rows = np.column_stack([*levels, misleading])
    groups, counts = np.unique(rows, axis=0, return_counts=True)
    n = len(thresholds)
    return ThresholdCandidates(
        thresholds=tuple(thresholds),
        levels=groups[:, :n],
        misleading=groups[:, n:].astype(bool),
        weights=counts.astype(float),
        complete=complete,
    )


def _of_exit(
    scores: np.ndarray, misleading: np.ndarray, most_losses: int, thin: bool, most: int
) -> tuple[np.ndarray, bool]:
    """Scores of one exit that are candidates, in descending order, and whether these are all."""
    known = ~np.isnan(scores)
    distinct, place = np.unique(scores[known], return_inverse=True)
    wrong = np.bincount(place, weights=misleading[known], minlength=len(distinct))
    values, lost = distinct[::-1], wrong[::-1].cumsum()
    kept = lost <= most_losses
    if thin:
        kept &= np.diff(lost, append=np.inf) > 0
    values = values[kept]
    if len(values) <= most:
        return values, True
    return values[np.linspace(0, len(values) - 1, most).round().astype(int)], False


def between(found: np.ndarray, scores: np.ndarray) -> list[float]:
    """Thresholds half-way from each candidate to the next smaller score of any sample.

    Scores of another engine differ in their last digits, so a threshold at a score itself would
    decide by rounding. Many samples may share this score, such as 1.
    """
    distinct = np.unique(np.concatenate([scores[~np.isnan(scores)], found]))
    below = np.searchsorted(distinct, found) - 1
    lower = np.where(below >= 0, distinct[np.maximum(below, 0)], found)
    middle = lower + (found - lower) / 2
    return [float(one) for one in np.where(middle > lower, middle, found)]
