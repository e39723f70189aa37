"""Search for the plan with the least makespan: devices and host run branches concurrently."""

from __future__ import annotations

import time
from dataclasses import dataclass

from layoutsel.planning.makespan import MOST_EXACT, Schedule, Scheduler
from layoutsel.planning.makespan_bound import relaxed
from layoutsel.planning.makespan_exact import shortest
from layoutsel.planning.partial_schedules import PartialSchedules
from layoutsel.planning.problem import PlanningProblem
from layoutsel.planning.schedule_search import SAME_US, Decisions, Found, searched

_ROUNDING = 1e-9
"""Relative difference of equal sums that were added in different orders."""
_WIDTHS = (30, 1000, 4000)
"""Widths of the exact searches of small problems, each with the best schedule of the one before."""


@dataclass(frozen=True, kw_only=True)
class Parallel:
    """Decisions with their schedule and certificate."""

    decisions: Decisions
    """Decision of each sub-graph."""
    schedule: Schedule
    """Shortest schedule found for the decisions."""
    bound_us: float
    """Lower bound on the schedules of all plans of the problem, microseconds."""


def solve_parallel(
    problem: PlanningProblem, first: Decisions, *, time_limit_s: float = 30.0
) -> Parallel:
    """Search for decisions with a short schedule, beginning with `first`.

    Small problems are searched exactly. Without a proof that no schedule is shorter, a heuristic
    search follows.

    Parameters
    ----------
    problem
        Problem to solve.
    first
        Decisions to start from.
    time_limit_s
        Time limit, seconds.
    """
    start = time.monotonic()
    scheduler = Scheduler(problem)
    best, bound_us = Found(first, scheduler.schedule(first)), 0.0
    if len(problem.nodes) <= MOST_EXACT:
        best, bound_us = _exact(problem, scheduler, best, start + time_limit_s / 4)
    if best.us > bound_us + SAME_US:
        left_s = start + time_limit_s - time.monotonic()
        bound = relaxed(problem, time_limit_s=left_s / 5)
        bound_us = max(bound_us, bound.bound_us)
        found = searched(
            problem,
            scheduler,
            best.decisions,
            bound,
            enough_us=bound_us + SAME_US,
            time_limit_s=start + time_limit_s - time.monotonic(),
        )
        found = Found(found.decisions, scheduler.schedule(found.decisions))
        best = min(best, found, key=lambda one: one.us)
    most_us = best.us * (1 + _ROUNDING) + SAME_US
    assert bound_us <= most_us, f"{bound_us} us is no lower bound on {best.us} us"
    return Parallel(decisions=best.decisions, schedule=best.schedule, bound_us=bound_us)


def _exact(
    problem: PlanningProblem, scheduler: Scheduler, best: Found, deadline: float
) -> tuple[Found, float]:
    """Search for the shortest schedule of all plans; returns it with the proven bound."""
    candidates = {node.id: node.options for node in problem.nodes}
    schedules = PartialSchedules(problem, scheduler.calls, candidates)
    bound_us = 0.0
    for width in _WIDTHS:
        found = shortest(schedules, best.us, width=width, deadline=deadline)
        bound_us = max(bound_us, found.bound_us)
        if found.best is not None:
            decisions, _ = schedules.plan(found.best)
            shorter = Found(decisions, scheduler.schedule(decisions))
            best = min(best, shorter, key=lambda one: one.us)
        if best.us <= bound_us + SAME_US:
            break
    return best, bound_us
