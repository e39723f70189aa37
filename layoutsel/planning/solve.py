"""Solvers and their order; every answer has a lower bound and its gap."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from layoutsel.planning.dual_bound import ascend
from layoutsel.planning.folding import on_best_devices, relaxed_if_wide
from layoutsel.planning.frontier import OutOfSpace, solve_frontier
from layoutsel.planning.integer import solve_integer
from layoutsel.planning.local_search import improve
from layoutsel.planning.presolve import eliminate_dead_ends
from layoutsel.planning.problem import PlanningProblem, ProblemError
from layoutsel.planning.symmetry import without_twins
from layoutsel.planning.tables import Tables, build_tables, restrict_tables, to_decisions
from tvm_passes.decision import Decision, SubgraphId

_LOG = logging.getLogger(__name__)

_TOLERANCE_US = 1e-6
"""Maximum gap of a plan that counts as proven best, microseconds."""

_PATIENCE_S = 1.0
"""Minimum time for dynamic programming, if half of the time limit allows it, seconds.

Its answer is exact, so that a tenth of a short time limit would be too little.
"""


@dataclass(frozen=True, kw_only=True)
class Solution:
    """Decisions with their certificate."""

    decisions: Mapping[SubgraphId, Decision]
    """Decision of each sub-graph."""
    cost_us: float
    """Predicted cost, microseconds."""
    bound_us: float
    """Proven lower bound on the cost of every plan of the problem, microseconds."""
    solver: str
    """Name of the solver that proved the bound."""
    time_s: float
    """Time that solving took, seconds."""
    bounds: Mapping[str, float] = field(default_factory=dict)
    """Proven bounds on other objectives, by name; see :mod:`layoutsel.planning.objectives`."""

    @property
    def gap(self) -> float:
        """Relative gap between cost and bound; 0 if the plan is proven best."""
        if self.cost_us - self.bound_us <= _TOLERANCE_US:
            return 0.0
        return (self.cost_us - self.bound_us) / self.cost_us


@dataclass(frozen=True, kw_only=True)
class _Answer:
    """A choice and a bound, as numbers of the tables."""

    choice: tuple[int, ...]
    """Option of each node."""
    bound_us: float
    """Proven lower bound, microseconds."""
    solver: str
    """Name of the solver."""


Solver = Callable[[Tables, float], _Answer]
"""Function of (tables, deadline by :func:`time.monotonic`) that returns an answer."""


def solve(
    problem: PlanningProblem, *, solver: str = "auto", time_limit_s: float = 10.0
) -> Solution:
    """Find the best plan for `problem` within about `time_limit_s` seconds.

    Raises
    ------
    ProblemError
        If `solver` is not in :data:`SOLVERS`, or an exact one exceeded its space or time.
    """
    if solver not in SOLVERS:
        raise ProblemError(f"unknown solver {solver!r}; expected one of {', '.join(SOLVERS)}")
    started = time.monotonic()
    problem = without_twins(problem)
    narrow = relaxed_if_wide(problem)
    if narrow is not None:
        return _solved_in_parts(problem, narrow, solver, time_limit_s)
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


def _solved_in_parts(
    problem: PlanningProblem, narrow: PlanningProblem, solver: str, time_limit_s: float
) -> Solution:
    """Solve a problem of many memories on its best devices alone.

    The bound comes from the relaxed problem `narrow`.
    """
    _LOG.info("many devices: the best ones are planned for, and the bound is one on all")
    started = time.monotonic()
    found = solve(on_best_devices(problem), solver=solver, time_limit_s=time_limit_s / 2)
    bound = solve(narrow, solver=solver, time_limit_s=time_limit_s / 2)
    is_exact = found.cost_us - bound.bound_us <= _TOLERANCE_US
    return replace(
        found,
        bound_us=min(bound.bound_us, found.cost_us),
        solver=found.solver if is_exact else "best devices",
        time_s=time.monotonic() - started,
    )


def _frontier(tables: Tables, deadline: float) -> _Answer:
    return _dynamic(tables, 500_000, deadline, "frontier")


def _dynamic(tables: Tables, max_states: int, deadline: float, name: str) -> _Answer:
    """Eliminate dead ends, then solve by dynamic programming; exact, or OutOfSpace."""
    kept = eliminate_dead_ends(tables, deadline=deadline)
    found = solve_frontier(restrict_tables(tables, kept), max_states=max_states, deadline=deadline)
    choice = _unrestrict(found.choice, kept)
    return _Answer(choice=choice, bound_us=tables.total(choice), solver=name)


def _integer(tables: Tables, deadline: float) -> _Answer:
    result = solve_integer(tables, time_limit_s=deadline - time.monotonic())
    choice = improve(tables, result.choice or _cheapest(tables))
    bound_us = max(result.bound_us, _trivial_bound(tables))
    return _Answer(choice=choice, bound_us=bound_us, solver="integer")


def _dual(tables: Tables, deadline: float) -> _Answer:
    result = ascend(tables, deadline=deadline)
    return _Answer(choice=result.choice, bound_us=result.bound_us, solver="dual")


def _auto(tables: Tables, deadline: float) -> _Answer:
    """Solve by dynamic programming, or if that is too wide, by dual ascent and exact solvers."""
    now = time.monotonic()
    try:
        patience = max((deadline - now) / 10, min((deadline - now) / 2, _PATIENCE_S))
        return _dynamic(tables, 10_000, now + patience, "frontier")
    except OutOfSpace as reason:
        _LOG.info("frontier: %s; raising the dual bound", reason)
    kept = eliminate_dead_ends(tables, deadline=now + (deadline - now) / 5)
    answer = _bounded(restrict_tables(tables, kept), deadline)
    return replace(answer, choice=_unrestrict(answer.choice, kept))


def _bounded(tables: Tables, deadline: float) -> _Answer:
    """Raise the dual bound, drop options that it proves worse than the best choice, solve the rest.

    Every choice better than the incumbent survives, so an exact answer for the rest is exact for
    all.
    """
    now = time.monotonic()
    dual = ascend(tables, deadline=now + 0.6 * (deadline - now))
    slack = tables.total(dual.choice) - dual.bound_us
    if slack <= _TOLERANCE_US or time.monotonic() >= deadline:
        return _Answer(choice=dual.choice, bound_us=dual.bound_us, solver="dual")
    kept = [
        np.union1d(np.flatnonzero(raised <= slack + _TOLERANCE_US), [mine]).astype(int)
        for raised, mine in zip(dual.raises_us, dual.choice, strict=True)
    ]
    rest = restrict_tables(tables, kept)
    left = deadline - time.monotonic()
    counts = [sum(map(len, options)) for options in (kept, tables.costs)]
    _LOG.info("the bound leaves %d of %d candidates open", *counts)
    try:
        answer = _dynamic(rest, 100_000, time.monotonic() + left / 3, "dual+frontier")
        return replace(answer, choice=_unrestrict(answer.choice, kept))
    except OutOfSpace as reason:
        _LOG.info("frontier: %s; integer programming", reason)
    found = solve_integer(rest, time_limit_s=0.9 * (deadline - time.monotonic()))
    choice = dual.choice
    if found.choice is not None:
        other = improve(tables, _unrestrict(found.choice, kept))
        choice = min(choice, other, key=tables.total)
    bound_us = max(dual.bound_us, found.bound_us)
    return _Answer(choice=choice, bound_us=bound_us, solver="dual+integer")


def _unrestrict(choice: tuple[int, ...], kept: list[np.ndarray]) -> tuple[int, ...]:
    return tuple(int(keep[option]) for keep, option in zip(kept, choice, strict=True))


def _cheapest(tables: Tables) -> tuple[int, ...]:
    return tuple(int(np.argmin(costs)) for costs in tables.costs)


def _trivial_bound(tables: Tables) -> float:
    """Compute the sum of the cheapest options without boundaries, microseconds."""
    return tables.constant + float(sum(costs.min() for costs in tables.costs))


SOLVERS: Mapping[str, Solver] = {
    "auto": _auto,
    "frontier": _frontier,
    "integer": _integer,
    "dual": _dual,
}
"""Solvers by name.

``frontier`` is exact or gives up; ``integer`` is exact if it finishes in time; ``dual`` is quick
and has a bound; ``auto`` combines them.
"""
