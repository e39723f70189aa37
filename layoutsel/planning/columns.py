"""Steady throughput of mixtures of placements, by column generation.

Requests may take different routes: a share of them is run by one placement of the sub-graphs, a
share by another. With ``rate[p]`` requests per microsecond on placement p, the greatest throughput
is a linear programme, which buffers attain (Beaumont et al., "Steady-state scheduling", 2003)::

    maximise sum of rate[p]   such that   sum over p of rate[p] * load[p, r] <= capacity[r]

There are too many placements to list. The programme starts with a few, and its dual prices the
resources. A solver for sums then finds the placement of least priced load, which joins the
programme (Gilmore and Gomory, 1961). At any prices, their sum divided by a lower bound on the least
priced load bounds the throughput of *every* strategy: pipelines, contiguous or not, replication and
mixtures of all of them.

Memory limits hold on average over the requests: ``sum of rate[p] * (bytes[p, n] - limit[n]) <= 0``.
Every strategy satisfies this, as a node keeps the weights of each placement that it takes part in.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from layoutsel.planning.loads import LoadTables
from layoutsel.planning.pricing import Pricer
from layoutsel.planning.problem import PlanningProblem, ProblemError
from layoutsel.planning.tables import to_choice, to_decisions
from tvm_passes.decision import Decision, SubgraphId

Choice = tuple[int, ...]
"""Option of each node."""
GAP = 1e-3
"""Relative gap between throughput and bound at which column generation stops."""
_CENTRE = 0.5
"""Weight of the best prices so far against those of the programme (Wentges, 1997)."""
_LEAST_RATE = 1e-6
"""Minimum share of the requests of a placement that is part of the result."""
_MOST_COLUMNS = 2000
"""Maximum number of placements that the programme keeps."""


@dataclass(frozen=True, kw_only=True)
class Mixture:
    """Placements with the rates of their requests, and a bound on the throughput."""

    rates: tuple[float, ...]
    """Requests per microsecond on each placement."""
    placements: tuple[Mapping[SubgraphId, Decision], ...]
    """Decisions of each placement."""
    bound: float
    """Proven upper bound on the throughput of all strategies, requests per microsecond."""
    pricings: int
    """Number of placements that the solver was asked for."""
    time_s: float
    """Time that solving took, seconds."""

    @property
    def throughput(self) -> float:
        """Requests per microsecond."""
        return sum(self.rates)

    @property
    def gap(self) -> float:
        """Relative gap between throughput and bound."""
        return max(1.0 - self.throughput / self.bound, 0.0) if self.bound > 0 else 0.0


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
        matrix = np.array(self.loads).T - self.rows.limit[:, None]
        scale = self._scale()
        found = linprog(
            -np.ones(len(self.loads)), A_ub=matrix / scale, b_ub=self.rows.capacity, method="highs"
        )
        if found.x is None:
            raise ProblemError(
                f"no limit on the throughput: {found.message} A placement that occupies no "
                f"resource has infinite throughput; give at least one sub-graph a cost"
            )
        self.rates = np.maximum(found.x, 0.0) / scale
        self.prices = np.maximum(-found.ineqlin.marginals, 0.0)
        return float(self.rates.sum())

    def _scale(self) -> float:
        """Choose a unit of time in which rates are near 1, microseconds."""
        return max(float(np.max(self.loads[0])), 1e-9)

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


def best_mixture(
    problem: PlanningProblem,
    *,
    capacity: Mapping[str, float] | None = None,
    start: Sequence[Mapping[SubgraphId, Decision]] = (),
    time_limit_s: float = 10.0,
    gap: float = GAP,
) -> Mixture:
    """Find the mixture of placements with the greatest throughput, and a bound on all strategies.

    Parameters
    ----------
    problem
        Candidates, boundaries and resources; its objective and limits are ignored.
    capacity
        Capacity by resource; 1 for others. Resources that stand for many have more.
    start
        Placements to begin with, besides each memory alone.
    time_limit_s
        Time limit, seconds.
    gap
        Relative gap at which to stop.
    """
    started = time.monotonic()
    tables = LoadTables(problem)
    given = capacity or {}
    rows = Rows(
        capacity=np.array([given.get(name, 1.0) for name in tables.resources]),
        limit=np.zeros(len(tables.resources)),
    )
    columns = PlacementPool(tables, rows)
    pricer = Pricer(tables)
    for decisions in start:
        columns.add(tuple(to_choice(problem, decisions)))
    for choice in pricer.alone():
        columns.add(choice)
    bound, pricings = generate(columns, pricer, deadline=started + time_limit_s, gap=gap)
    throughput = float(columns.rates.sum())
    kept = np.flatnonzero(columns.rates > _LEAST_RATE * throughput)
    return Mixture(
        rates=tuple(columns.rates[kept].tolist()),
        placements=tuple(to_decisions(problem, columns.choices[i]) for i in kept),
        bound=max(bound, throughput),
        pricings=pricings,
        time_s=time.monotonic() - started,
    )


def generate(
    columns: PlacementPool, pricer: Pricer, *, deadline: float, gap: float = GAP
) -> tuple[float, int]:
    """Add placements until the throughput is within `gap` of its bound, or until the deadline.

    Returns
    -------
    tuple
        Bound on the throughput, requests per microsecond, and the number of pricings.
    """
    rows = columns.rows
    bound, centre, weight, pricings = np.inf, None, _CENTRE, 0
    while True:
        throughput = columns.solve()
        if throughput >= (1.0 - gap) * bound or (pricings and time.monotonic() > deadline):
            return bound, pricings
        asked = columns.prices
        if centre is not None:
            asked = weight * centre + (1.0 - weight) * asked
        asked = asked / asked.sum()
        found = pricer.cheapest(asked, deadline=deadline)
        pricings += 1
        least = found.bound_us - float(asked @ rows.limit)
        raised = float(asked @ rows.capacity) / least if least > 0 else np.inf
        if raised < bound or centre is None:
            bound, centre = min(bound, raised), asked / max(least, 1e-12)
        is_new = columns.add(found.choice)
        cuts = float(columns.prices @ (columns.tables.loads(found.choice) - rows.limit)) < 1 - 1e-9
        # A placement that the programme's own prices do not want moves the prices too little.
        weight = _CENTRE if is_new and cuts else weight / 2
        if not is_new and weight < 1e-3:
            return bound, pricings
