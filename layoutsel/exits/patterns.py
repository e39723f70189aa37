"""Patterns of sure exits: the sets of exits that are sure of a sample, and their frequency.

Exits are sure of the same easy samples, so that plans weigh the observed sets instead of the
product of each exit's own probability.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, kw_only=True)
class SurePattern:
    """Exits that are sure of a sample, and the number of samples with exactly these."""

    exits: tuple[int, ...]
    """Numbers of the exits, ascending, without the final one."""
    samples: int
    """Number of samples."""


def patterns_of(sure: np.ndarray) -> tuple[SurePattern, ...]:
    """Count the distinct patterns, the most frequent one first.

    Parameters
    ----------
    sure
        Sure answers of the exits before the final one: bool, (N, E - 1).
    """
    if not len(sure):
        return ()
    rows, counts = np.unique(sure, axis=0, return_counts=True)
    found = (
        SurePattern(exits=tuple(map(int, np.flatnonzero(row))), samples=int(count))
        for row, count in zip(rows, counts, strict=True)
    )
    return tuple(sorted(found, key=lambda one: (-one.samples, one.exits)))


def pattern_table(patterns: Sequence[SurePattern], exits: int) -> tuple[np.ndarray, np.ndarray]:
    """Sure exits by pattern, bool (P + 1, E) with the final exit set, and samples by pattern.

    The last pattern is sure of nothing but the final exit. It has no samples of its own, or one if
    nothing was observed.
    """
    sure = np.zeros((len(patterns) + 1, exits), dtype=bool)
    for row, one in zip(sure, patterns, strict=False):
        row[list(one.exits)] = True
    sure[:, -1] = True
    return sure, np.array([*(one.samples for one in patterns), 0 if patterns else 1])
