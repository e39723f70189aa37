"""Makespan: the time until all results are available, while devices and host work concurrently."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace

from layoutsel.planning.chains import chains, cheapest_in
from layoutsel.planning.makespan import Scheduler, schedule
from layoutsel.planning.makespan_bound import relaxed
from layoutsel.planning.objectives.base import (
    Answer,
    Assessed,
    Decisions,
    Objective,
    time_of_runs,
)
from layoutsel.planning.other_plans import OtherPlans, alone, changed
from layoutsel.planning.parallel import solve_parallel
from layoutsel.planning.problem import Option, PlanningProblem, PricedSubgraph
from layoutsel.planning.strategies import choose
from layoutsel.planning.values import MAKESPAN


def _assess(problem: PlanningProblem, decisions: Decisions) -> Assessed:
    found = schedule(problem, decisions)
    return Assessed(value=found.makespan_us, order=found.order)


def _search(problem: PlanningProblem, strategy: str, time_limit_s: float) -> Answer:
    """Search from the plan with the least sum, which takes a quarter of the time limit."""
    started = time.monotonic()
    first = choose(problem, strategy=strategy, time_limit_s=time_limit_s / 4)
    found = solve_parallel(problem, first.decisions, time_limit_s=3 * time_limit_s / 4)
    solution = replace(
        first,
        decisions=found.decisions,
        cost_us=problem.cost(found.decisions).total_us,
        bounds={MAKESPAN: found.bound_us},
        time_s=time.monotonic() - started,
    )
    return Answer(solution=solution)


def _bound(problem: PlanningProblem, time_limit_s: float) -> float:
    return relaxed(problem, time_limit_s=time_limit_s).bound_us


def _others(problem: PlanningProblem, decisions: Decisions, time_limit_s: float) -> OtherPlans:
    """Change single decisions, and move whole chains to the memory of a candidate.

    One call in another memory is rarely worth its copies.
    """
    scheduler = Scheduler(problem)
    chain_of = {id_: chain for chain in chains(problem) for id_ in chain}
    now_us = scheduler.schedule(decisions).makespan_us

    def loss(other: Decisions) -> float:
        return scheduler.schedule(other).makespan_us - now_us

    def changes(node: PricedSubgraph, option: Option) -> Iterator[Decisions]:
        yield from alone(node, option)
        chain = [problem.by_id[id_] for id_ in chain_of[node.id]]
        moved = cheapest_in(option.memory, chain) | {node.id: option.decision}
        if len(moved) > 1:
            yield moved

    return changed(problem, decisions, loss, time_limit_s, changes)


OBJECTIVE = Objective(
    name=MAKESPAN,
    unit="us",
    about="devices and host at once",
    assess=_assess,
    solvers={"schedule search": _search},
    bound=_bound,
    time_limit_s=40.0,
    measured=time_of_runs,
    others=_others,
    overlaps=True,
)
