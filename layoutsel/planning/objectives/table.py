"""Table of objectives, with the functions that choose and describe plans by it.

Each entry is one file of this folder, which defines ``OBJECTIVE``. Other packages add entries
through the entry-point group ``layoutsel.objectives``, or by :func:`register`.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import cast

from layoutsel.planning.objectives.base import Answer, Decisions, Objective
from layoutsel.planning.problem import PlanningProblem, ProblemError
from layoutsel.planning.strategies import announce_gap
from layoutsel.planning.values import SUM, Value
from tvm_passes.decision import SubgraphId
from tvm_passes.registry import Registry, entries_in

_LOG = logging.getLogger(__name__)


def own_objectives() -> list[Objective]:
    """List our own objectives, in order of their modules."""
    return cast("list[Objective]", entries_in("layoutsel.planning.objectives", "OBJECTIVE"))


OBJECTIVES: Registry[Objective] = Registry("objective", own_objectives, Objective)
"""All objectives: ours first, then those of other packages."""


def register(objective: Objective) -> None:
    """Add an objective to the table.

    Raises
    ------
    LayoutselError
        If another objective has its name.
    """
    OBJECTIVES.register(objective)


def objectives() -> Mapping[str, Objective]:
    """Return all objectives by name: ours first, then those of other packages."""
    return OBJECTIVES


def objective_of(name: str) -> Objective:
    """Find an objective by name.

    Raises
    ------
    ProblemError
        If the name is unknown.
    """
    found = OBJECTIVES.get(name)
    if found is None:
        raise ProblemError(f"unknown objective {name!r}; expected one of {', '.join(OBJECTIVES)}")
    return found


def decide(
    problem: PlanningProblem,
    *,
    strategy: str = "joint",
    solver: str | None = None,
    time_limit_s: float | None = None,
) -> Answer:
    """Decide every sub-graph for the problem's objective, in the same way as :func:`answer`.

    A warning reports if no exact solver, or no search, finished in time.
    """
    found = answer(problem, strategy=strategy, solver=solver, time_limit_s=time_limit_s)
    objective = objective_of(problem.objective)
    limit_s = objective.time_limit_s if time_limit_s is None else time_limit_s
    if objective.is_additive:
        announce_gap(found.solution)
    elif found.solution.time_s >= limit_s:
        _LOG.warning(
            "planning for %s ended at its time limit of %.3g s, with the bound kept: a longer "
            "limit (time_limit_s, --time-limit) may find a better plan",
            objective.about,
            limit_s,
        )
    return found


def answer(
    problem: PlanningProblem,
    *,
    strategy: str = "joint",
    solver: str | None = None,
    time_limit_s: float | None = None,
) -> Answer:
    """Decide every sub-graph of `problem` for its objective, without a warning of a gap.

    Parameters
    ----------
    problem
        Problem with an objective and its limits.
    strategy
        An entry of :data:`~layoutsel.planning.strategies.STRATEGIES`.
    solver
        One of the objective's solvers; None for the default one.
    time_limit_s
        Time limit, seconds; None for the objective's default.

    Raises
    ------
    ProblemError
        If the objective, a limit, the strategy or the solver is unknown.
    """
    objective = objective_of(problem.objective)
    objective.check(problem)
    limit_s = objective.time_limit_s if time_limit_s is None else time_limit_s
    return objective.solver(solver)(problem, strategy, limit_s)


def unlimited(problem: PlanningProblem) -> PlanningProblem:
    """Copy the problem without limits; its plans have the same values."""
    name = objective_of(problem.objective).unlimited
    return replace(problem, objective=name, limits={}) if name else problem


def timed(problem: PlanningProblem) -> PlanningProblem:
    """Copy the problem without limits, for run times.

    The sum of costs replaces an objective that is not a run time.
    """
    if not objective_of(problem.objective).is_run_time:
        return replace(problem, objective=SUM, limits={})
    return unlimited(problem)


def state(
    problem: PlanningProblem, decisions: Decisions, bounds: Mapping[str, float]
) -> tuple[dict[str, Value], tuple[SubgraphId, ...]]:
    """Compute the values and bounds of a plan, and its order of calls.

    The values are those of the sum of costs and of the problem's objective.

    Parameters
    ----------
    problem, decisions
        The plan.
    bounds
        Known bounds, by objective; others are computed.
    """
    values: dict[str, Value] = {}
    order: tuple[SubgraphId, ...] = ()
    for name in dict.fromkeys((SUM, problem.objective)):
        objective = objective_of(name)
        assessed = objective.assess(problem, decisions)
        known = name in bounds
        bound = bounds[name] if known else objective.bound(problem, objective.time_limit_s)
        values[name] = objective.certified(assessed.value, bound)
        order = assessed.order or order
    return values, order
