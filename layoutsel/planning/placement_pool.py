"""Linear programme over a growing pool of placements; see :mod:`~layoutsel.planning.columns`."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from layoutsel.planning.loads import LoadTables
from layoutsel.planning.problem import ProblemError

Choice = tuple[int, ...]
"""Option of each node."""
_MOST_COLUMNS = 2000
"""Maximum number of placements that the programme keeps."""


@dataclass(frozen=True, kw_only=True)
class Rows:
    """Rows of the programme: ``sum of rate * (load - limit) <= capacity`` for each resource."""

    capacity: np.ndarray
    """Capacities: 1 for a resource that is busy all the time; 0 for memory."""
    limit: np.ndarray
    """Limits of memory, in the unit of its loads; 0 for other resources."""


class PlacementPool:
    """Restricted programme of a problem: a pool of placements that grows."""

    def __init__(self, tables: LoadTables, rows: Rows) -> None:
        self.tables, self.rows = tables, rows
        self.choices: list[Choice] = []
        self.loads: list[np.ndarray] = []
        self.rates = np.zeros(0)
        """Rates of the placements in the last solution."""
        self.prices = np.zeros(len(rows.capacity))
        """Prices of the resources in the last solution."""
        self._known: set[Choice] = set()

    def add(self, choice: Choice) -> bool:
        """Add a placement; False if it is known."""
        if choice in self._known:
            return False
        self._known.add(choice)
        self.choices.append(choice)
        self.loads.append(self.tables.loads(choice))
        return True

    def solve(self) -> float:
        """Solve the programme; returns the throughput, requests per microsecond."""
        from scipy.optimize import linprog

        self._forget()
        # Rates are in requests per scale, and bytes in shares of their limit.
        scale = self._scale()
        by_row = np.where(self.rows.limit > 0, self.rows.limit, scale)
        matrix = (np.array(self.loads).T - self.rows.limit[:, None]) / by_row[:, None]
        found = linprog(
            -np.ones(len(self.loads)), A_ub=matrix, b_ub=self.rows.capacity, method="highs"
        )
        if found.x is None:
            raise ProblemError(
                f"no limit on the throughput: {found.message} A placement that occupies no "
                f"resource has infinite throughput; give at least one sub-graph a cost"
            )
        self.rates = np.maximum(found.x, 0.0) / scale
        self.prices = np.maximum(-found.ineqlin.marginals, 0.0) / by_row
        return float(self.rates.sum())

    def _scale(self) -> float:
        """Choose a unit of time in which rates are near 1, microseconds."""
        return max(float(self.loads[0][self.rows.limit == 0].max(initial=0.0)), 1e-9)

    def _forget(self) -> None:
        """Keep the placements in use and the newest ones."""
        if len(self.loads) <= _MOST_COLUMNS:
            return
        used = set(np.flatnonzero(self.rates > 0).tolist())
        newest = range(len(self.loads) - _MOST_COLUMNS // 2, len(self.loads))
        kept = sorted(used | set(newest))
        self.choices = [self.choices[i] for i in kept]
        self.loads = [self.loads[i] for i in kept]
        self._known = set(self.choices)
