"""Rules for the answer of a request: the exit whose result is returned, and its time."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

Rule = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]
"""Answering exit and time, microseconds, by pattern (P,), of times and sure exits.

The first argument has the time at which the result of each exit is known, (E,), NaN for exits that
never answer; the second one the sure exits by pattern, bool (P, E). The final exit is always sure.
"""


def _first(known_us: np.ndarray, sure: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    times_us = np.where(sure & ~np.isnan(known_us), known_us, np.inf)
    return times_us.argmin(axis=1), times_us.min(axis=1)


def _ordered(known_us: np.ndarray, sure: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    exits = (sure & ~np.isnan(known_us)).argmax(axis=1)
    return exits, np.fmax.accumulate(known_us)[exits]


ANSWERS: Mapping[str, Rule] = {"first": _first, "ordered": _ordered}
"""Rules by name.

``first``: the sure exit whose result is known first. ``ordered``: the sure exit that is earliest in
the order of the exits, once it and all results of earlier exits are known; the answer never depends
on timing.
"""
