"""Strategies: unit and layout jointly, or the unit by complexity score, then the layout."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import replace

from layoutsel.planning.problem import Option, PlanningProblem, PricedSubgraph, ProblemError
from layoutsel.planning.solve import Solution, solve

_LOG = logging.getLogger(__name__)

_EXACT = ("frontier", "dual+frontier")
"""Solvers that leave no gap, except one that is due to the strategy."""

Strategy = Callable[[PlanningProblem, str, float], Solution]
"""Function of (problem, solver, time limit in seconds) that returns a solution."""


def choose(
    problem: PlanningProblem,
    *,
    strategy: str = "joint",
    time_limit_s: float = 10.0,
    solver: str = "auto",
) -> Solution:
    """Decide every sub-graph by an entry of :data:`STRATEGIES`, with the least sum of costs.

    The bound of the solution holds for the whole problem, even for plans that the strategy does not
    consider.

    Raises
    ------
    ProblemError
        If the strategy or the solver is unknown.
    """
    if strategy not in STRATEGIES:
        known = ", ".join(STRATEGIES)
        raise ProblemError(f"unknown strategy {strategy!r}; expected one of {known}")
    return STRATEGIES[strategy](problem, solver, time_limit_s)


def announce_gap(solution: Solution) -> None:
    """Warn if no exact solver finished in time."""
    if solution.gap > 0 and solution.solver not in _EXACT:
        _LOG.warning(
            "no exact plan within the time limit: fell back to %s; the plan is at most %.2g %% "
            "from the best",
            solution.solver,
            100 * solution.gap,
        )


def unit_by_score(node: PricedSubgraph) -> str:
    """Return the unit with the smallest complexity score for `node`; the first by name if equal."""
    return min(node.options, key=lambda o: (_score(o), o.decision.unit)).decision.unit


def _score(option: Option) -> float:
    return option.cost_us if option.score_us is None else option.score_us


def _joint(problem: PlanningProblem, solver: str, time_limit_s: float) -> Solution:
    return solve(problem, solver=solver, time_limit_s=time_limit_s)


def _by_score(problem: PlanningProblem, solver: str, time_limit_s: float) -> Solution:
    """Choose layouts jointly for the units with the best scores; bound by the joint problem."""
    started = time.monotonic()
    units = {node.id: unit_by_score(node) for node in problem.nodes}
    narrowed = problem.restrict(lambda node, option: option.decision.unit == units[node.id])
    solution = solve(narrowed, solver=solver, time_limit_s=time_limit_s / 2)
    joint = solve(problem, solver=solver, time_limit_s=time_limit_s / 2)
    return replace(
        solution,
        bound_us=min(joint.bound_us, solution.cost_us),
        time_s=time.monotonic() - started,
    )


STRATEGIES: Mapping[str, Strategy] = {"joint": _joint, "score": _by_score}
"""Strategies by name.

``joint``: unit and layout together. ``score``: unit by complexity score, then layout for that unit.
"""
