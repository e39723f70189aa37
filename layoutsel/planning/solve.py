"""Solvers, and the order in which they are tried. Every answer carries a lower bound and its gap."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from layoutsel.planning.frontier import OutOfSpace, solve_frontier
from layoutsel.planning.integer import solve_integer, solve_relaxation
from layoutsel.planning.local_search import improve
from layoutsel.planning.presolve import eliminate_dead_ends
from layoutsel.planning.problem import PlanningProblem, ProblemError
from layoutsel.planning.tables import Tables, build_tables, restrict_tables, to_decisions
from tvm_passes.decision import Decision, SubgraphId

_LOG = logging.getLogger(__name__)

_TOLERANCE_US = 1e-6
"""Bounds closer than this to the cost prove it best."""

_PATIENCE_S = 1.0
"""Dynamic programming is given this much even where the time limit is shorter: its answer is exact."""


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
    """Find the best plan for `problem` within about `time_limit_s` seconds.

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
    return Solution(
        decisions=to_decisions(problem, answer.choice),
        cost_us=cost_us,
        bound_us=min(answer.bound_us, cost_us),
        solver=answer.solver,
        time_s=time.monotonic() - started,
    )


def _frontier(tables: Tables, deadline: float) -> _Answer:
    return _dynamic(tables, 500_000, deadline, "frontier")


def _dynamic(tables: Tables, max_states: int, deadline: float, name: str) -> _Answer:
    """Dead-end elimination, then dynamic programming; exact, or OutOfSpace."""
    kept = eliminate_dead_ends(tables)
    found = solve_frontier(restrict_tables(tables, kept), max_states=max_states, deadline=deadline)
    choice = _unrestrict(found.choice, kept)
    return _Answer(choice=choice, bound_us=tables.total(choice), solver=name)


def _integer(tables: Tables, deadline: float) -> _Answer:
    result = solve_integer(tables, time_limit_s=deadline - time.monotonic())
    choice = improve(tables, result.choice or _cheapest(tables))
    bound_us = max(result.bound_us, _trivial_bound(tables))
    return _Answer(choice=choice, bound_us=bound_us, solver="integer")


def _local(tables: Tables, deadline: float) -> _Answer:
    """Round and improve the relaxation; without it, improve the cheapest options."""
    relaxation = solve_relaxation(tables, time_limit_s=deadline - time.monotonic())
    choice = improve(tables, _cheapest(tables))
    bound_us = _trivial_bound(tables)
    if relaxation is not None:
        rounded = improve(tables, [int(np.argmax(w)) for w in relaxation.weights])
        choice = min(choice, rounded, key=tables.total)
        bound_us = max(bound_us, relaxation.bound_us)
    return _Answer(choice=choice, bound_us=bound_us, solver="local")


def _auto(tables: Tables, deadline: float) -> _Answer:
    """Dynamic programming; where that is too wide, relaxation and integer programming."""
    now = time.monotonic()
    try:
        return _dynamic(tables, 10_000, now + max((deadline - now) / 10, _PATIENCE_S), "frontier")
    except OutOfSpace as reason:
        _LOG.info("frontier: %s; solving the relaxation", reason)
    kept = eliminate_dead_ends(tables)
    answer = _relaxed(restrict_tables(tables, kept), deadline)
    return replace(answer, choice=_unrestrict(answer.choice, kept))


def _relaxed(tables: Tables, deadline: float) -> _Answer:
    """Relaxation, rounded and improved; if that is not proven best, branch and bound."""
    relaxation = solve_relaxation(tables, time_limit_s=0.8 * (deadline - time.monotonic()))
    if relaxation is None:
        return _beam(tables, deadline)
    rounded = improve(tables, [int(np.argmax(w)) for w in relaxation.weights])
    if tables.total(rounded) - relaxation.bound_us <= _TOLERANCE_US:
        return _Answer(choice=rounded, bound_us=relaxation.bound_us, solver="relaxation")
    left = deadline - time.monotonic()
    result = solve_integer(tables, time_limit_s=0.9 * left)
    choice = rounded
    if result.choice is not None:
        choice = min(rounded, improve(tables, result.choice), key=tables.total)
    bound_us = max(relaxation.bound_us, result.bound_us)
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

EXACT = ("frontier", "relaxation")
"""Names in :attr:`Solution.solver` that leave no gap."""
