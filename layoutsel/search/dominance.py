"""Dominance among networks: which ones no other one beats, and the volume that they dominate."""

from __future__ import annotations

import numpy as np


def non_dominated(us: np.ndarray, score: np.ndarray, more: np.ndarray) -> np.ndarray:
    """Find the labels that no other one dominates; one of several equal ones.

    Parameters
    ----------
    us
        Time, to be small, (labels,).
    score
        Score, to be large, (labels,).
    more
        Other quantities to be small, (labels, quantities).

    Returns
    -------
    np.ndarray
        Their positions, in ascending order of time.
    """
    order = np.lexsort((*more.T[::-1], -score, us))
    if not more.shape[1]:
        ordered = score[order]
        best = np.maximum.accumulate(ordered)
        is_kept = np.ones(len(order), dtype=bool)
        is_kept[1:] = ordered[1:] > best[:-1]
        return order[is_kept]
    return order[_kept_of(np.column_stack([-score, more])[order])]


_CHUNK = 256
"""Number of labels that are compared at once."""


def _kept_of(values: np.ndarray) -> np.ndarray:
    """Positions of rows that no earlier row is at most as large as in every column."""
    kept = values[:0]
    found: list[np.ndarray] = []
    for first in range(0, len(values), _CHUNK):
        chunk = values[first : first + _CHUNK]
        rest = np.flatnonzero(~_covered(kept, chunk))
        inner = chunk[rest]
        rest = rest[~np.triu(_covers(inner, inner), 1).any(axis=0)]
        found.append(first + rest)
        kept = np.concatenate([kept, chunk[rest]])
    return np.concatenate(found) if found else np.zeros(0, dtype=int)


def _covered(kept: np.ndarray, chunk: np.ndarray) -> np.ndarray:
    """Rows of a chunk that some kept row is at most as large as in every column."""
    found = np.zeros(len(chunk), dtype=bool)
    for first in range(0, len(kept), 4 * _CHUNK):
        some = kept[first : first + 4 * _CHUNK]
        found |= _covers(some, chunk).any(axis=0)
    return found


def _covers(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """True where a row of `first` is at most as large as one of `second` in every column."""
    found = np.ones((len(first), len(second)), dtype=bool)
    # Column by column is many times as fast as all columns of all pairs at once.
    for own, other in zip(first.T, second.T, strict=True):
        found &= own[:, None] <= other
    return found


def hypervolume(cost: np.ndarray, value: np.ndarray, reference: tuple[float, float]) -> float:
    """Area that points dominate up to a reference point.

    Parameters
    ----------
    cost
        Quantity to be small, (points,).
    value
        Quantity to be large, (points,).
    reference
        Largest cost and smallest value that count.
    """
    most, least = reference
    inside = (cost < most) & (value > least)
    cost, value = cost[inside], value[inside]
    kept = non_dominated(cost, value, np.zeros((len(cost), 0)))
    ends = np.append(cost[kept][1:], most)
    return float(np.sum((ends - cost[kept]) * (value[kept] - least)))
