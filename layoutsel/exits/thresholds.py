"""Thresholds that minimise the expected time of a request while few samples lose."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from layoutsel.exits.candidates import candidates
from layoutsel.exits.matrix import ExitMatrix
from layoutsel.exits.pattern_times import PatternTimes, never_slower, time_table
from layoutsel.exits.policy import Policy
from layoutsel.exits.threshold_search import ThresholdSearch

_log = logging.getLogger(__name__)

MOST_EXACT = 3
"""Largest number of exits before the final one for the exact search."""
MANY_CANDIDATES = 20_000
"""Largest number of candidates of an exit for the exact search."""
FEW_CANDIDATES = 300
"""Largest number of candidates of an exit for coordinate descent."""


@dataclass(frozen=True, kw_only=True)
class ThresholdChoice:
    """A policy, and its expected time and losses on the samples that chose it."""

    policy: Policy
    """The policy, without a certificate."""
    time: float
    """Mean time of the samples, in the unit of the given times."""
    losses: int
    """Number of samples that lose."""
    exact: bool
    """True if no thresholds have a smaller mean time with at most as many losses as allowed."""


def fastest(
    matrix: ExitMatrix, most_losses: int, times: PatternTimes, *, patience: int | None = None
) -> ThresholdChoice:
    """Choose the thresholds with the least mean time among those with few losses.

    The search is exact for up to three exits before the final one. For more exits, or too many
    combinations of candidates, it is a coordinate descent over pairs of exits.

    Parameters
    ----------
    matrix
        Observations.
    most_losses
        Largest number of samples that may lose.
    times
        Time of a request by its sure exits.
    patience
        Number of exits in a row with equal predictions that make the last of them sure, if any.

    Raises
    ------
    PolicyError
        If a time is negative or not finite, or there are too many exits.
    """
    early = len(matrix.exits) - 1
    table = time_table(times, early)
    off = Policy(score=matrix.score, thresholds=(None,) * (early + 1), patience=patience)
    best = _choice(off, matrix, table)
    exact = early <= MOST_EXACT
    for active in _active_sets(early, patience):
        picked, exact = _picked(matrix, most_losses, table, active, patience, exact=exact)
        if picked is not None:
            found = _choice(replace(off, thresholds=(*picked, None)), matrix, table)
            best = min(best, found, key=lambda one: (one.time, one.losses))
    if not exact:
        _log.info(
            "thresholds of %d exits: a search by descent, which may miss the best ones", early
        )
    return replace(best, exact=exact)


def _choice(policy: Policy, matrix: ExitMatrix, table: np.ndarray) -> ThresholdChoice:
    codes = policy.sure(matrix) @ (1 << np.arange(len(matrix.exits) - 1))
    losses = int(policy.losses(matrix).sum())
    return ThresholdChoice(
        policy=policy, time=float(table[codes].mean()), losses=losses, exact=True
    )


def _picked(
    matrix: ExitMatrix,
    most_losses: int,
    table: np.ndarray,
    active: tuple[bool, ...],
    patience: int | None,
    *,
    exact: bool,
) -> tuple[Sequence[float | None] | None, bool]:
    """Thresholds if `active` exits may answer, None if none are possible, and whether exact."""
    options = candidates(
        matrix,
        most_losses,
        active=active,
        thin=never_slower(table),
        patience=patience,
        most=MANY_CANDIDATES if exact else FEW_CANDIDATES,
    )
    if options is None:
        return None, exact
    search = ThresholdSearch(options, table, most_losses)
    if exact and not search.feasible:
        return _picked(matrix, most_losses, table, active, patience, exact=False)
    exact &= options.complete
    found = search.exact() if search.feasible else search.descent()
    if found is None:
        return None, exact
    return [one[c] for one, c in zip(options.thresholds, found, strict=True)], exact


def _active_sets(early: int, patience: int | None) -> Iterator[tuple[bool, ...]]:
    """Exits that may answer; with patience, an exit that is off changes the rows of others."""
    if patience is None:
        yield (True,) * early
    elif early <= MOST_EXACT:
        yield from itertools.product((True, False), repeat=early)
    else:
        # The first exits are the least accurate, so these are the ones to leave out.
        for skipped in range(early):
            yield (False,) * skipped + (True,) * (early - skipped)
