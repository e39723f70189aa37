"""Construction of mixed-integer linear programmes for HiGHS."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from scipy.optimize import OptimizeResult
    from scipy.sparse import csr_array

Term = tuple[int, float]
"""Index of a variable, and its factor."""


class Programme:
    """Variables with their costs, and rows ``lower ≤ sum of factor * variable ≤ upper``."""

    def __init__(self) -> None:
        self.objective: list[float] = []
        self.integral: list[int] = []
        self.most: list[float] = []
        self.entries: list[tuple[int, int, float]] = []
        self.lower: list[float] = []
        self.upper: list[float] = []

    def variables(
        self, costs: Iterable[float], *, integral: bool = False, most: float = 1.0
    ) -> int:
        """Add one variable per cost, from 0 to `most`; returns the index of the first."""
        first = len(self.objective)
        self.objective += [float(cost) for cost in costs]
        added = len(self.objective) - first
        self.integral += [int(integral)] * added
        self.most += [most] * added
        return first

    def row(self, terms: Iterable[Term], lower: float, upper: float) -> None:
        """Add a row; factors of a repeated variable are added up."""
        self.entries += [(len(self.lower), variable, factor) for variable, factor in terms]
        self.lower.append(lower)
        self.upper.append(upper)

    def minimised(
        self, *, time_limit_s: float, gap: float = 0.0, nodes: int | None = None
    ) -> OptimizeResult:
        """Minimise the costs with :func:`scipy.optimize.milp`.

        Parameters
        ----------
        time_limit_s
            Time limit, seconds.
        gap
            Relative gap at which to stop.
        nodes
            Maximum number of branch-and-bound nodes.
        """
        # SciPy takes some 40 MB; dynamic programming solves most models without it.
        from scipy.optimize import Bounds, LinearConstraint, milp

        limits = {} if nodes is None else {"node_limit": nodes}
        return milp(
            c=np.array(self.objective),
            integrality=np.array(self.integral),
            bounds=Bounds(0.0, np.array(self.most)),
            constraints=LinearConstraint(self._matrix(), self.lower, self.upper),
            options={"time_limit": max(time_limit_s, 0.01), "mip_rel_gap": gap, **limits},
        )

    def _matrix(self) -> csr_array:
        from scipy.sparse import coo_array

        rows, columns, values = zip(*self.entries, strict=True)
        shape = (len(self.lower), len(self.objective))
        return coo_array((values, (rows, columns)), shape=shape).tocsr()
