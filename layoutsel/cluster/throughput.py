"""Greatest throughput: mixtures of placements, single pipelines and replication compared."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from layoutsel.cluster.pipelines import pipelines
from layoutsel.planning.columns import GAP, best_mixture, rows_of
from layoutsel.planning.loads import LoadTables, Rooms
from layoutsel.planning.placement_pool import PlacementPool
from layoutsel.planning.pricing import Pricer
from layoutsel.planning.problem import PlanningProblem
from layoutsel.planning.residency import Residency
from layoutsel.planning.tables import to_choice, to_decisions
from tvm_passes.decision import Decision, SubgraphId

Decisions = Mapping[SubgraphId, Decision]
"""Decision of each sub-graph."""


@dataclass(frozen=True, kw_only=True)
class Throughput:
    """Routes of the requests, with the throughput of other strategies."""

    routes: tuple[tuple[float, Decisions], ...]
    """Share of the requests and decisions of each route; the shares add up to 1."""
    per_us: float
    """Requests per microsecond."""
    bound_per_us: float
    """Proven upper bound on all strategies, requests per microsecond."""
    replication_per_us: float
    """Throughput of the whole network on each node alone; 0 if it fits on none."""
    pipeline_per_us: float
    """Throughput of the best single placement found."""
    strategy: str
    """Kind of the routes: ``replication``, ``pipeline`` or ``mixture``."""
    solver: str
    """Name of the solver that proved the bound."""
    time_s: float
    """Time that solving took, seconds."""

    @property
    def gap(self) -> float:
        """Relative gap between throughput and bound."""
        return max(1.0 - self.per_us / self.bound_per_us, 0.0) if self.bound_per_us > 0 else 0.0


def best_throughput(
    problem: PlanningProblem, *, rooms: Rooms | None = None, time_limit_s: float = 10.0
) -> Throughput:
    """Find the routes of the greatest throughput, and a bound on every strategy.

    A simpler strategy is preferred if it is as good within :data:`~layoutsel.planning.columns.GAP`.

    Parameters
    ----------
    problem
        Candidates, boundaries and resources.
    rooms
        Limits of memories, for all routes together; none by default.
    time_limit_s
        Time limit, seconds.

    Raises
    ------
    ProblemError
        If some placement occupies no resource, or nothing was found that fits into the memories.
    """
    started = time.monotonic()
    start = list(pipelines(problem, rooms=rooms, time_limit_s=0.2 * time_limit_s))
    left_s = started + 0.95 * time_limit_s - time.monotonic()
    mixture = best_mixture(problem, rooms=rooms, start=start, time_limit_s=max(left_s, 0.1))
    tables = LoadTables(problem)
    singles = [(_rate_alone(tables, one), one) for one in (*start, *mixture.placements)]
    if rooms is not None:
        residency = Residency(tables, rooms)
        singles = [(rate, one) for rate, one in singles if residency.fits(to_choice(problem, one))]
    strategies: dict[str, Sequence[tuple[float, Decisions]]] = {
        "replication": _replicas(tables, rooms),
        "pipeline": [max(singles, key=lambda pair: pair[0])],
        "mixture": list(zip(mixture.rates, mixture.placements, strict=True)),
    }
    totals = {name: sum(rate for rate, _ in routes) for name, routes in strategies.items()}
    enough = (1.0 - GAP) * max(totals.values())
    strategy = next(name for name, total in totals.items() if total >= enough)
    return Throughput(
        routes=tuple((rate / totals[strategy], one) for rate, one in strategies[strategy]),
        per_us=totals[strategy],
        bound_per_us=max(mixture.bound, totals[strategy]),
        replication_per_us=totals["replication"],
        pipeline_per_us=totals["pipeline"],
        strategy=strategy,
        solver="column generation",
        time_s=time.monotonic() - started,
    )


def _rate_alone(tables: LoadTables, decisions: Decisions) -> float:
    """Compute the throughput of a single placement, requests per microsecond."""
    return 1.0 / float(tables.loads(to_choice(tables.problem, decisions)).max())


def _replicas(tables: LoadTables, rooms: Rooms | None) -> list[tuple[float, Decisions]]:
    """Share the requests among nodes that run the whole network alone, as well as possible."""
    pool = PlacementPool(tables, rows_of(tables, None, {}))
    residency = Residency(tables, rooms or Rooms())
    for choice in Pricer(tables).alone():
        if residency.fits(choice):
            pool.add(choice)
    if not pool.choices:
        return []
    pool.solve()
    problem = tables.problem
    return [
        (float(rate), to_decisions(problem, choice))
        for rate, choice in zip(pool.rates, pool.choices, strict=True)
        if rate > 0
    ]
