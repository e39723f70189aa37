"""Merging of the legal values of single elements into few ranges of evenly spaced elements."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from layoutsel.device.signature import ValueRange

MOST_PIECES = 64
"""Maximum number of ranges of an input; beyond it, one range covers the values of all elements."""


def pieces(low: np.ndarray, high: np.ndarray, least: int, most: int) -> tuple[ValueRange, ...]:
    """Merge the legal values of elements into ranges; unrestricted elements are omitted.

    Parameters
    ----------
    low, high
        The least and the largest legal value of each element; infinite without a limit.
    least, most
        Range of the element type.
    """
    low, high = np.maximum(low, least), np.minimum(high, most)
    limits = np.stack([low, high])
    bound = np.flatnonzero((low > least) | (high < most))
    if not bound.size:
        return ()
    found: list[ValueRange] = []
    for group in _groups(limits, bound):
        for start, stop, step in _runs(group):
            if len(found) == MOST_PIECES:
                return _widest(low, high, least, most)
            one, two = (int(x) for x in _integers(limits[:, start], least, most))
            found.append(ValueRange(low=one, high=two, start=start, stop=stop, step=step))
    return tuple(found)


def _integers(ends: np.ndarray, least: int, most: int) -> tuple[int, int]:
    """Convert limits to integers, without the rounding of 64-bit limits to float64."""
    return max(int(ends[0]), least), min(int(ends[1]), most)


def _groups(limits: np.ndarray, bound: np.ndarray) -> list[np.ndarray]:
    """Group elements by their limits."""
    _, group = np.unique(limits[:, bound], axis=1, return_inverse=True)
    order = np.argsort(group.reshape(-1), kind="stable")
    counts = np.bincount(group.reshape(-1))
    return np.split(bound[order], np.cumsum(counts)[:-1])


def _runs(elements: np.ndarray) -> Iterator[tuple[int, int, int]]:
    """Yield start, stop and step of evenly spaced runs of ascending `elements`."""
    first = 0
    while first < len(elements):
        gaps = np.diff(elements[first:])
        uneven = np.flatnonzero(gaps != gaps[0]) if gaps.size else gaps
        last = first + (int(uneven[0]) if uneven.size else len(gaps))
        step = int(gaps[0]) if gaps.size else 1
        yield int(elements[first]), int(elements[last]) + 1, step
        first = last + 1


def _widest(low: np.ndarray, high: np.ndarray, least: int, most: int) -> tuple[ValueRange, ...]:
    one, two = _integers(np.array([low.min(), high.max()]), least, most)
    if (one, two) == (least, most):
        return ()
    return (ValueRange(low=one, high=two, start=0, stop=len(low)),)
