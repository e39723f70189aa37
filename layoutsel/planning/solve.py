"""Solvers, and the order in which they are tried. Every answer carries a lower bound and its gap."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from layoutsel.planning.frontier import OutOfSpace, solve_frontier
from layoutsel.planning.integer import Relaxation, solve_integer, solve_relaxation
from layoutsel.planning.local_search import improve
from layoutsel.planning.problem import PlanningProblem, ProblemError
from layoutsel.planning.tables import Tables, build_tables, restrict_tables, to_decisions
from tvm_passes.decision import Decision, SubgraphId

_LOG = logging.getLogger(__name__)

_TOLERANCE_US = 1e-6
"""Bounds closer than this to the cost prove it best."""


@dataclass(frozen=True, kw_only=True)
class Solution:
    """Decisions with their certificate."""

    decisions: Mapping[SubgraphId, Decision]
    cost_us: float
    """Predicted cost, microseconds."""
    bound_us: float
    """Proven lower bound on the cost of every plan of the problem, microseconds."""
    solver: str
    """Name of the solver that proved it."""
    time_s: float
    """Seconds that solving took."""

    @property
    def gap(self) -> float:
        """Relative gap between cost and bound; 0 where the plan is proven best."""
        if self.cost_us - self.bound_us <= _TOLERANCE_US:
            return 0.0
        return (self.cost_us - self.bound_us) / self.cost_us


@dataclass(frozen=True, kw_only=True)
class _Answer:
    """A choice and a bound, in terms of the tables."""

    choice: tuple[int, ...]
    bound_us: float
    solver: str


Solver = Callable[[Tables, float], _Answer]
"""(tables, deadline by :func:`time.monotonic`) → answer."""


def solve(
    problem: PlanningProblem, *, solver: str = "auto", time_limit_s: float = 10.0
) -> Solution:
    """The best plan found for `problem` within about `time_limit_s` seconds.

    Raises
    ------
    ProblemError
        If `solver` is not in :data:`SOLVERS`, or an exact one could not finish in space or time.
    """
    if solver not in SOLVERS:
        raise ProblemError(f"unknown solver {solver!r}; expected one of {', '.join(SOLVERS)}")
    started = time.monotonic()
    tables = build_tables(problem)
    try:
        answer = SOLVERS[solver](tables, started + time_limit_s)
    except OutOfSpace as reason:
        raise ProblemError(
            f"solver {solver!r} gave up: {reason}. Use 'auto', or more time"
        ) from reason
    cost_us = tables.total(answer.choice)
    solution = Solution(
        decisions=to_decisions(problem, answer.choice),
        cost_us=cost_us,
        bound_us=min(answer.bound_us, cost_us),
        solver=answer.solver,
        time_s=time.monotonic() - started,
    )
    if solution.gap > 0 and solver == "auto":
        _LOG.warning(
            "no exact plan within %.1f s: fell back to %s, at most %.3f %% from the best",
            time_limit_s,
            solution.solver,
            100 * solution.gap,
        )
    return solution


def _frontier(tables: Tables, deadline: float) -> _Answer:
    result = solve_frontier(tables, max_states=500_000, deadline=deadline)
    return _Answer(choice=result.choice, bound_us=tables.total(result.choice), solver="frontier")


def _integer(tables: Tables, deadline: float) -> _Answer:
    result = solve_integer(tables, time_limit_s=deadline - time.monotonic())
    choice = improve(tables, result.choice or _cheapest(tables))
    bound_us = max(result.bound_us, _trivial_bound(tables))
    return _Answer(choice=choice, bound_us=bound_us, solver="integer")


def _local(tables: Tables, deadline: float) -> _Answer:
    """Rounded relaxation, improved; without the relaxation, cheapest options, improved."""
    relaxation = solve_relaxation(tables, time_limit_s=deadline - time.monotonic())
    choice = improve(tables, _cheapest(tables))
    bound_us = _trivial_bound(tables)
    if relaxation is not None:
        rounded = improve(tables, [int(np.argmax(w)) for w in relaxation.weights])
        choice = min(choice, rounded, key=tables.total)
        bound_us = max(bound_us, relaxation.bound_us)
    return _Answer(choice=choice, bound_us=bound_us, solver="local")


def _auto(tables: Tables, deadline: float) -> _Answer:
    """Dynamic programming; else relaxation, fixing what it proves, dynamic programming, integer programming."""
    started = time.monotonic()
    patience = (deadline - started) / 10
    try:
        quick = solve_frontier(tables, max_states=5_000, deadline=started + patience)
    except OutOfSpace as reason:
        _LOG.info("frontier: %s; solving the relaxation", reason)
    else:
        return _Answer(choice=quick.choice, bound_us=tables.total(quick.choice), solver="frontier")
    relaxation = solve_relaxation(tables, time_limit_s=0.6 * (deadline - started))
    if relaxation is None:
        return _beam(tables, deadline)
    rounded = improve(tables, [int(np.argmax(w)) for w in relaxation.weights])
    if tables.total(rounded) - relaxation.bound_us <= _TOLERANCE_US:
        return _Answer(choice=rounded, bound_us=relaxation.bound_us, solver="relaxation")
    return _fixed(tables, relaxation, rounded, deadline)


def _fixed(
    tables: Tables, relaxation: Relaxation, incumbent: tuple[int, ...], deadline: float
) -> _Answer:
    """Drop the options whose reduced cost proves them worse than `incumbent`, and solve what is left.

    Reduced-cost fixing keeps every plan better than the incumbent, so an exact answer for the rest is exact.
    """
    slack = tables.total(incumbent) - relaxation.bound_us + _TOLERANCE_US
    kept = [
        np.union1d(np.flatnonzero(raised <= slack), [mine])
        for raised, mine in zip(relaxation.reduced_us, incumbent, strict=True)
    ]
    rest = restrict_tables(tables, kept)
    left = deadline - time.monotonic()
    _LOG.info(
        "reduced costs leave %d of %d candidates", *(sum(map(len, c)) for c in (kept, tables.costs))
    )
    try:
        found = solve_frontier(
            rest, max_states=100_000, deadline=time.monotonic() + left / 3
        ).choice
        choice, solver = _unrestrict(found, kept), "relaxation+frontier"
        return _Answer(choice=choice, bound_us=tables.total(choice), solver=solver)
    except OutOfSpace as reason:
        _LOG.info("frontier after fixing: %s; integer programming", reason)
    result = solve_integer(rest, time_limit_s=deadline - time.monotonic() - 0.1 * left)
    choice, bound_us = incumbent, relaxation.bound_us
    if result.choice is not None:
        better = improve(tables, _unrestrict(result.choice, kept))
        choice = min(choice, better, key=tables.total)
        bound_us = max(bound_us, result.bound_us)
    return _Answer(choice=choice, bound_us=bound_us, solver="relaxation+integer")


def _beam(tables: Tables, deadline: float) -> _Answer:
    choice = improve(tables, _cheapest(tables))
    try:
        beam = solve_frontier(tables, max_states=500, beam=True, deadline=deadline)
        choice = min(choice, improve(tables, beam.choice), key=tables.total)
    except OutOfSpace as reason:
        _LOG.info("beam: %s", reason)
    return _Answer(choice=choice, bound_us=_trivial_bound(tables), solver="beam")


def _unrestrict(choice: tuple[int, ...], kept: list[np.ndarray]) -> tuple[int, ...]:
    return tuple(int(keep[option]) for keep, option in zip(kept, choice, strict=True))


def _cheapest(tables: Tables) -> tuple[int, ...]:
    return tuple(int(np.argmin(costs)) for costs in tables.costs)


def _trivial_bound(tables: Tables) -> float:
    """Every sub-graph at its cheapest, boundaries for nothing."""
    return tables.constant + float(sum(costs.min() for costs in tables.costs))


SOLVERS: Mapping[str, Solver] = {
    "auto": _auto,
    "frontier": _frontier,
    "integer": _integer,
    "local": _local,
    "beam": _beam,
}
"""``auto`` tries the others in turn; ``frontier`` is exact; ``integer`` is exact if it finishes in time."""
