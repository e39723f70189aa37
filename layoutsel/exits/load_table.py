"""Table of arrangements by load: few distinct ones, close to the best of every cell of a grid."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import Any

import numpy as np

from layoutsel import documents
from layoutsel.device.core_load import CoreLoad
from layoutsel.documents.saved import below, reject
from layoutsel.exits.arrangement import Arrangement, ExitCosts
from layoutsel.exits.arrangement_checks import arrangement_faults
from layoutsel.exits.load_grid import LoadGrid, borders
from layoutsel.exits.planner import ExitProblem, SolvedExits, solve
from layoutsel.planning.programme import Programme
from tvm_passes.errors import LayoutselError

SCHEMA_VERSION = 1
"""Version of tables."""
TOLERANCE = 0.02
"""Default regret up to which an arrangement counts as good enough for a cell."""
MOST = 8
"""Default maximum number of arrangements, without those that only fall-backs use."""
TIME_LIMIT_S = 2.0
"""Default time limit of all searches together, seconds."""
RENEW = "Compile the network again"
"""Advice on a table whose version is no longer supported."""
_LEAST_S = 0.01
"""Least time of the search for one cell, seconds."""

CostsAt = Callable[[CoreLoad], ExitCosts]
"""Times of a network under a load."""


class LoadTableError(LayoutselError):
    """A table with inconsistent values."""


@dataclass(frozen=True, kw_only=True)
class LoadBorder:
    """Range of loads of one kind with one arrangement."""

    streaming: float
    """Share of the other work that streams through the main memory."""
    from_busy: float
    """Number of busy cores from which on the arrangement is chosen."""
    to_busy: float
    """Number of busy cores up to which it is chosen."""
    chosen: int
    """Number of the arrangement."""


@dataclass(frozen=True, kw_only=True)
class LoadTable:
    """Arrangements of one compiled network, and the one to use in each cell of a grid of loads.

    Raises
    ------
    LoadTableError
        If the values do not fit each other.
    """

    schema_version: int
    """:data:`SCHEMA_VERSION`."""
    grid: LoadGrid
    """Cells."""
    objective: str
    """Entry of :data:`layoutsel.exits.latencies.OBJECTIVES` that the values are of."""
    arrangements: tuple[Arrangement, ...]
    """Distinct arrangements; all of them share code and weights."""
    value_us: tuple[tuple[float, ...], ...]
    """Predicted objective by cell and arrangement, microseconds."""
    mean_us: tuple[tuple[float, ...], ...]
    """Predicted mean latency by cell and arrangement, microseconds."""
    best_us: tuple[float, ...]
    """Predicted objective of the best of all arrangements by cell, microseconds."""
    bound_us: tuple[float, ...]
    """Lower bound on the objective of all arrangements by cell, microseconds."""
    factors: tuple[float, ...]
    """Measured over predicted time of each arrangement; 1 if it was not measured."""
    chosen: tuple[int, ...] = field(init=False)
    """Arrangement with the least corrected value by cell."""
    off: tuple[int, ...] = field(init=False)
    """Trunk alone with the least corrected value by cell, for use when exits must not answer."""

    def __post_init__(self) -> None:
        for fault in _faults(self):
            raise LoadTableError(f"table of loads: {fault}")
        values_us = self.values_us
        alone = [not any(one.branches) for one in self.arrangements]
        chosen = values_us.argmin(axis=1)
        off = np.where(alone, values_us, np.inf).argmin(axis=1)
        object.__setattr__(self, "chosen", tuple(map(int, chosen)))
        object.__setattr__(self, "off", tuple(map(int, off)))

    @property
    def values_us(self) -> np.ndarray:
        """Corrected objective by cell and arrangement, microseconds."""
        return np.array(self.value_us) * np.array(self.factors)

    @property
    def regret(self) -> np.ndarray:
        """Predicted loss against each cell's own best arrangement, as a share of it, (cells,)."""
        best_us = np.array(self.best_us)
        return np.maximum(np.array(self.value_us).min(axis=1) / best_us - 1, 0.0)

    def borders(self) -> tuple[LoadBorder, ...]:
        """Ranges of loads with one arrangement, by kind of work."""
        levels = self.grid.busy
        edges = [0.0, *borders(levels), float(self.grid.cores)]
        found = []
        for kind, streaming in enumerate(self.grid.streaming):
            row = self.chosen[kind * len(levels) : (kind + 1) * len(levels)]
            for chosen, run in groupby(range(len(levels)), key=row.__getitem__):
                held = list(run)
                found.append(
                    LoadBorder(
                        streaming=streaming,
                        from_busy=edges[held[0]],
                        to_busy=edges[held[-1] + 1],
                        chosen=chosen,
                    )
                )
        return tuple(found)

    def corrected(self, load: CoreLoad, measured_us: Sequence[float]) -> LoadTable:
        """Copy with all predictions corrected by a measurement under one load.

        Parameters
        ----------
        load
            Load during the measurement.
        measured_us
            Measured objective of each arrangement, microseconds.
        """
        predicted_us = self.value_us[self.grid.cell(load)]
        factors = (us / value for us, value in zip(measured_us, predicted_us, strict=True))
        return replace(self, factors=tuple(factors))

    @classmethod
    def read(cls, document: Any, costs: ExitCosts, *, file: str = "document") -> LoadTable:
        """Read a table from JSON.

        Parameters
        ----------
        document
            Parsed JSON.
        costs
            Times of the network, for the names of workers.
        file
            Name of the file, for error messages.

        Raises
        ------
        DocumentError, LoadTableError
            If the document is not a table, or an inconsistent one.
        """
        documents.check_version(
            document, "schema_version", (SCHEMA_VERSION,), renew=RENEW, file=file
        )
        try:
            found = documents.from_json(cls, document, file=file)
        except LoadTableError as error:
            raise LoadTableError(f"{file}: {error}") from error
        for number, one in enumerate(found.arrangements):
            reject(below(f"$.arrangements[{number}]", arrangement_faults(one, costs)), file)
        return found


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
    doubled. The trunk alone is kept as well, for each cell on a worker within the tolerance.

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
        Maximum number of arrangements without the trunk alone, at least 1.
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
    bests = dict.fromkeys(one.best.arrangement for one in solved)
    alone = dict.fromkeys(
        one for found in solved for one in found.baselines.values() if not any(one.branches)
    )
    kept = dict.fromkeys(
        [*_few(solved, list(bests), tolerance, most), *_few(solved, list(alone), tolerance, most)]
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


def _faults(table: LoadTable) -> Iterator[str]:
    """Faults of the values, the first of which is an error."""
    cells, count = table.grid.cells, len(table.arrangements)
    if all(any(one.branches) for one in table.arrangements):
        yield f"got {count} arrangements; expected one of the trunk alone among them"
    for name, values in (("best_us", table.best_us), ("bound_us", table.bound_us)):
        if len(values) != cells:
            yield f"got {name} of {len(values)} cells; expected {cells}"
    for name, rows in (("value_us", table.value_us), ("mean_us", table.mean_us)):
        lengths = list(map(len, rows))
        if lengths != [count] * cells:
            yield f"got rows of {name} with the lengths {lengths}; expected {cells} of {count}"
    if len(table.factors) != count:
        yield f"got {len(table.factors)} factors; expected {count}"
    positive = (table.best_us, table.factors, *table.value_us, *table.mean_us)
    if not all(value > 0 for values in positive for value in values):
        yield "got a time or factor that is not above zero; expected positive numbers"
