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

from layoutsel.planning.loads import LoadTables, Rooms, room_in
from layoutsel.planning.placement_pool import PlacementPool, Rows
from layoutsel.planning.pricing import Pricer
from layoutsel.planning.problem import PlanningProblem
from layoutsel.planning.residency import fitting
from layoutsel.planning.tables import to_choice, to_decisions
from tvm_passes.decision import Decision, SubgraphId

GAP = 1e-3
"""Relative gap between throughput and bound at which column generation stops."""
_CENTRE = 0.5
"""Weight of the best prices so far against those of the programme (Wentges, 1997)."""
_SETTLED = 1e-3
"""Weight of the best prices below which known placements mean that the prices have settled."""
_LEAST_RATE = 1e-6
"""Minimum share of the requests of a placement that is part of the result."""


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


def best_mixture(
    problem: PlanningProblem,
    *,
    capacity: Mapping[str, float] | None = None,
    rooms: Rooms | None = None,
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
    rooms
        Limits of memories, for all placements of the mixture together; none by default.
    start
        Placements to begin with, besides each memory alone.
    time_limit_s
        Time limit, seconds.
    gap
        Relative gap at which to stop.

    Raises
    ------
    ProblemError
        If some placement occupies no resource, or no mixture was found that fits into the memories.
    """
    started = time.monotonic()
    tables = LoadTables(problem, rooms)
    rows = rows_of(tables, rooms, capacity or {})
    pool = PlacementPool(tables, rows)
    pricer = Pricer(tables)
    for decisions in start:
        pool.add(tuple(to_choice(problem, decisions)))
    for choice in pricer.alone():
        pool.add(choice)
    # The last answer may come a little late; with limits, an integer programme follows.
    share = 0.95 if rooms is None else 0.6
    deadline = started + share * time_limit_s
    bound, pricings = generate(pool, pricer, deadline=deadline, gap=gap)
    choices, rates = pool.choices, pool.rates
    if rooms is not None:
        left_s = started + time_limit_s - time.monotonic()
        choices, rates = fitting(pool, rooms, bound=bound, time_limit_s=left_s)
    throughput = float(rates.sum())
    kept = np.flatnonzero(rates > _LEAST_RATE * throughput)
    return Mixture(
        rates=tuple(rates[kept].tolist()),
        placements=tuple(to_decisions(problem, choices[i]) for i in kept),
        bound=max(bound, throughput),
        pricings=pricings,
        time_s=time.monotonic() - started,
    )


def rows_of(tables: LoadTables, rooms: Rooms | None, capacity: Mapping[str, float]) -> Rows:
    """Make the rows of a programme: a capacity for each resource, a limit for each memory."""
    limits = {} if rooms is None else {room_in(m): b for m, b in rooms.room_bytes.items()}
    return Rows(
        capacity=np.array([0.0 if r in limits else capacity.get(r, 1.0) for r in tables.resources]),
        limit=np.array([limits.get(name, 0.0) for name in tables.resources]),
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
        # Prices of memory alone may bound nothing: they are no centre for others.
        if raised < bound:
            bound, centre = raised, asked / least
        is_new = columns.add(found.choice)
        cuts = float(columns.prices @ (columns.tables.loads(found.choice) - rows.limit)) < 1 - 1e-9
        # A placement that the programme's own prices do not want moves the prices too little.
        weight = _CENTRE if is_new and cuts else weight / 2
        if not is_new and weight < _SETTLED:
            if not pricer.refine():
                return bound, pricings
            weight = _CENTRE
