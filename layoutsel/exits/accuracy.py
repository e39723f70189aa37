"""Scores mapped to accuracies, so that one accuracy stands for the thresholds of all exits.

The accuracy of a score is that of samples with alike scores, fitted so that it rises with the
score (PCEE, arXiv 2412.19325). A threshold of the accuracy is one of the score itself, so nothing
has to be mapped when the network runs.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from layoutsel.exits.candidates import between
from layoutsel.exits.matrix import ExitMatrix


@dataclass(frozen=True, kw_only=True, eq=False)
class ScoreAccuracy:
    """Accuracy of an exit by its score."""

    scores: np.ndarray
    """Scores, in ascending order."""
    accuracies: np.ndarray
    """Accuracy at each score; an answer is wrong only if the final exit is right."""

    def threshold(self, least: float) -> float | None:
        """Loosest threshold with an accuracy of at least `least`; None if no score has it."""
        enough = self.scores[self.accuracies >= least]
        return between(enough[:1], self.scores)[0] if len(enough) else None


def score_accuracies(matrix: ExitMatrix) -> tuple[ScoreAccuracy, ...]:
    """Fit the accuracy of each exit before the final one; NaN scores are left out."""
    found = []
    for scores, misleading in zip(matrix.scores[:, :-1].T, matrix.misleading.T, strict=True):
        known = ~np.isnan(scores)
        distinct, place, counts = np.unique(scores[known], return_inverse=True, return_counts=True)
        right = np.bincount(place, ~misleading[known], len(distinct))
        accuracies = rising_means(right, counts.astype(float))
        found.append(ScoreAccuracy(scores=distinct, accuracies=accuracies))
    return tuple(found)


def rising_means(sums: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Fit rising means to groups by least squares (pool adjacent violators).

    Parameters
    ----------
    sums
        Sum of the values of each group, in order.
    counts
        Number of values of each group.
    """
    blocks: list[tuple[float, float, int]] = []  # sum, count, number of groups
    for total, count in zip(sums.tolist(), counts.tolist(), strict=True):
        block = (total, count, 1)
        while blocks and blocks[-1][0] * block[1] >= block[0] * blocks[-1][1]:
            before = blocks.pop()
            block = (before[0] + block[0], before[1] + block[1], before[2] + block[2])
        blocks.append(block)
    means = [total / count for total, count, _ in blocks]
    return np.repeat(means, [groups for *_, groups in blocks])
