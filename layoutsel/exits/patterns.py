"""Patterns of sure exits: the sets of exits that are sure of a sample, and their frequency.

Exits are sure of the same easy samples, so that plans weigh the observed sets instead of the
product of each exit's own probability.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from layoutsel.exits.matrix import ExitMatrix
from layoutsel.exits.policy import Policy


@dataclass(frozen=True, kw_only=True)
class SurePattern:
    """Exits that are sure of a sample, and the number of samples with exactly these."""

    exits: tuple[int, ...]
    """Numbers of the exits, ascending, without the final one."""
    samples: int
    """Number of samples."""


def sure_exits(policy: Policy, matrix: ExitMatrix) -> np.ndarray:
    """Mark the exits that are sure of each sample: bool, (N, E); the final exit always is.

    An exit is sure if its score reaches its threshold, or if the last `patience` exits up to it
    predict the same class.
    """
    never = float("inf")
    thresholds = np.array([never if t is None else t for t in policy.thresholds])
    with np.errstate(invalid="ignore"):  # NaN is unsure
        sure = matrix.scores >= thresholds
    if policy.patience is not None:
        equal = np.ones_like(sure[:, 0], dtype=int)
        for number in range(sure.shape[1]):
            if number:
                same = matrix.predictions[:, number] == matrix.predictions[:, number - 1]
                equal = np.where(same, equal + 1, 1)
            sure[:, number] |= equal >= policy.patience
    sure[:, -1] = True
    return sure


def patterns_of(sure: np.ndarray) -> tuple[SurePattern, ...]:
    """Count the distinct patterns, the most frequent one first.

    Parameters
    ----------
    sure
        Exits that are sure of each sample: bool, (N, E).
    """
    if not len(sure):
        return ()
    rows, counts = np.unique(sure[:, :-1], axis=0, return_counts=True)
    found = (
        SurePattern(exits=tuple(map(int, np.flatnonzero(row))), samples=int(count))
        for row, count in zip(rows, counts, strict=True)
    )
    return tuple(sorted(found, key=lambda one: (-one.samples, one.exits)))


def pattern_table(patterns: Sequence[SurePattern], exits: int) -> tuple[np.ndarray, np.ndarray]:
    """Sure exits by pattern, bool (P, E) with the final exit set, and samples by pattern.

    Without patterns, the table has one that is sure of nothing but the final exit.
    """
    sure = np.zeros((max(len(patterns), 1), exits), dtype=bool)
    for row, one in zip(sure, patterns, strict=False):
        row[list(one.exits)] = True
    sure[:, -1] = True
    return sure, np.array([one.samples for one in patterns] or [1])


def may_answer(policy: Policy) -> tuple[bool, ...]:
    """Tell for each exit if it can be sure of any sample; the final one always is."""
    *thresholds, _ = policy.thresholds
    patience = policy.patience or len(policy.thresholds)
    found = (t is not None or number + 1 >= patience for number, t in enumerate(thresholds))
    return (*found, True)
