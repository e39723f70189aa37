"""Time of a request by the pattern of its sure exits."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import numpy as np

from layoutsel.exits.policy import PolicyError

PatternTimes = Callable[[tuple[bool, ...]], float]
"""Function of the time of a request, in any unit, from its sure exits before the final one."""
MOST_EXITS = 16
"""Largest number of exits before the final one; a table of times has two to its power entries."""


def sequential(work: Sequence[float]) -> PatternTimes:
    """Times if all exits run on one worker, and the first sure one ends the request.

    Parameters
    ----------
    work
        Work up to and including each exit, the final one last, in any unit.

    Raises
    ------
    PolicyError
        If the work is not positive and finite, or falls from one exit to the next.
    """
    rises = all(before <= after for before, after in itertools.pairwise(work))
    if not work or not rises or not work[0] > 0 or not np.isfinite(work[-1]):
        given = ", ".join(f"{one:g}" for one in work) or "nothing"
        raise PolicyError(
            f"work up to the exits: got {given}; expected positive numbers, none smaller than the "
            f"one before"
        )
    return lambda sure: work[sure.index(True) if True in sure else -1]


def even(exits: int) -> PatternTimes:
    """Sequential times of exits with equal work between them, as shares of the whole."""
    return sequential([(index + 1) / exits for index in range(exits)])


def time_table(times: PatternTimes, early: int) -> np.ndarray:
    """Times of all patterns of sure exits; bit i of the index stands for exit i.

    Parameters
    ----------
    times
        Times.
    early
        Number of exits before the final one.

    Raises
    ------
    PolicyError
        If there are too many exits, or a time is negative or not finite.
    """
    if early > MOST_EXITS:
        raise PolicyError(
            f"got {early} exits before the final one; expected at most {MOST_EXITS}. Leave exits "
            f"out of the specification"
        )
    patterns = [tuple(bool(code >> i & 1) for i in range(early)) for code in range(1 << early)]
    table = np.array([times(pattern) for pattern in patterns], float)
    if not (np.isfinite(table).all() and (table >= 0).all()):
        code = int(np.argmin(np.isfinite(table) & (table >= 0)))
        raise PolicyError(
            f"time of the pattern {patterns[code]}: got {table[code]:g}; expected a finite number "
            f"from 0 on"
        )
    return table


def never_slower(table: np.ndarray) -> list[bool]:
    """True for each exit that makes no pattern slower if it is sure as well."""
    codes = np.arange(len(table))
    early = len(table).bit_length() - 1
    return [bool((table[codes | 1 << i] <= table).all()) for i in range(early)]
