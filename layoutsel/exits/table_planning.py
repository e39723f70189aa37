"""Planning of tables by load: few arrangements, close to the best of every cell of a grid."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from layoutsel.device.core_load import CoreLoad
from layoutsel.exits.arrangement import Arrangement, ExitCosts
from layoutsel.exits.load_grid import LoadGrid
from layoutsel.exits.load_table import SCHEMA_VERSION, LoadTable
from layoutsel.exits.planner import ExitProblem, SolvedExits, solve
from layoutsel.planning.programme import Programme

TOLERANCE = 0.02
"""Default regret up to which an arrangement counts as good enough for a cell."""
MOST = 8
"""Default maximum number of arrangements of each kind."""
TIME_LIMIT_S = 2.0
"""Default time limit of all searches together, seconds."""
_LEAST_S = 0.01
"""Least time of the search for one cell, seconds."""

CostsAt = Callable[[CoreLoad], ExitCosts]
"""Times of a network under a load."""


def make_table(
    problem: ExitProblem,
    costs_at: CostsAt,
    grid: LoadGrid,
    *,
    pins: Sequence[str] = (),
    tolerance: float = TOLERANCE,
    most: int = MOST,
    time_limit_s: float = TIME_LIMIT_S,
) -> LoadTable:
    """Plan a network for each cell of a grid of loads, and keep few arrangements.

    The kept ones are the fewest of the cells' best arrangements such that one of them is within the
    tolerance of the best in every cell. If more than `most` are necessary, the tolerance is
    doubled. The trunk alone is kept as well, and so is the best arrangement on one worker, which a
    wrong prediction of several threads or workers does not slow down: for each cell within the
    tolerance.

    Parameters
    ----------
    problem
        The network; its costs are replaced by those under each load.
    costs_at
        Times of the network by load.
    grid
        Cells.
    pins
        Prescribed workers, as in :func:`layoutsel.exits.exit_pins.pinned`.
    tolerance
        Relative loss that is good enough.
    most
        Maximum number of arrangements of each of the three kinds, at least 1.
    time_limit_s
        Time limit of all searches, seconds. Arrangements that were not proven to be the best have a
        bound below their value.

    Raises
    ------
    LayoutselError
        If the problem is inconsistent.
    UnsatisfiedPin
        If no arrangement keeps all pins.
    """
    end_s = time.monotonic() + time_limit_s
    solved = []
    for cell in range(grid.cells):
        costs = costs_at(grid.load(cell))
        left_s = max((end_s - time.monotonic()) / (grid.cells - cell), _LEAST_S)
        solved.append(solve(replace(problem, costs=costs), pins, left_s))
    baselines = [(found, one) for found in solved for one in found.baselines.values()]
    groups = (
        [found.best.arrangement for found in solved],
        [one for _, one in baselines if not any(one.branches)],
        [one for found, one in baselines if not one.is_beside and _keeps_pins(found, one)],
    )
    kept = dict.fromkeys(
        one
        for group in groups
        if group
        for one in _few(solved, list(dict.fromkeys(group)), tolerance, most)
    )
    values_us = _values_us(solved, list(kept), problem.objective)
    return LoadTable(
        schema_version=SCHEMA_VERSION,
        grid=grid,
        objective=problem.objective,
        arrangements=tuple(kept),
        value_us=_rows(values_us),
        mean_us=_rows(_values_us(solved, list(kept), "mean")),
        best_us=tuple(
            min(found.best.value_us, float(row.min()))
            for found, row in zip(solved, values_us, strict=True)
        ),
        bound_us=tuple(found.best.bound_us for found in solved),
        factors=(1.0,) * len(kept),
    )


def _keeps_pins(found: SolvedExits, one: Arrangement) -> bool:
    """True if each stage has a worker that the pins allow."""
    return one.trunk in found.options.trunk and all(
        worker in of for worker, of in zip(one.branches, found.options.branches, strict=True)
    )


def _few(
    solved: Sequence[SolvedExits], candidates: Sequence[Arrangement], tolerance: float, most: int
) -> list[Arrangement]:
    """Fewest candidates such that each cell has one within the tolerance of its best candidate."""
    values_us = np.array([[one.search.value_us(of) for of in candidates] for one in solved])
    regret = values_us / values_us.min(axis=1, keepdims=True) - 1
    while True:
        chosen = _cover(regret, tolerance)
        if len(chosen) <= most:
            return [candidates[place] for place in chosen]
        tolerance *= 2


def _cover(regret: np.ndarray, tolerance: float) -> list[int]:
    """Fewest columns of which each row has one within the tolerance; the best ones of as few."""
    columns = regret.shape[1]
    programme = Programme()
    # The shares of all columns add up to less than 1, the cost of one more column.
    shares = np.minimum(regret, 1.0).mean(axis=0) / (columns + 1)
    programme.variables(1 + shares, integral=True)
    for row in regret <= tolerance:
        programme.row([(int(place), 1.0) for place in np.flatnonzero(row)], 1.0, np.inf)
    found = programme.minimised(time_limit_s=TIME_LIMIT_S).x
    if found is None:  # out of time: all of them
        return list(range(columns))
    return [int(place) for place in np.flatnonzero(found > 0.5)]


def _values_us(
    solved: Sequence[SolvedExits], arrangements: Sequence[Arrangement], objective: str
) -> np.ndarray:
    """Objective by cell and arrangement, microseconds."""
    return np.array([[one.model.value_us(of, objective) for of in arrangements] for one in solved])


def _rows(values: np.ndarray) -> tuple[tuple[float, ...], ...]:
    return tuple(tuple(map(float, row)) for row in values)
