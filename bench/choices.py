"""What does the joint choice bring? Plans of every way to choose, built and timed against each other.

``python bench/choices.py light:resnet50 … --json bench/results/choices.json``
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from script import run

from layoutsel.api import finish
from layoutsel.benchmarking.cases import case_name
from layoutsel.compile.make_plan import explained_plan, priced_problem
from layoutsel.compile.offers import Offers
from layoutsel.compile.session import Session
from layoutsel.planning.alternatives import best_with, single_plans
from layoutsel.planning.problem import PlanningProblem
from layoutsel.planning.solve import Solution
from layoutsel.planning.strategies import choose
from layoutsel.runtime.race import race
from layoutsel.runtime.samples import random_inputs
from tvm_passes.decision import Decision, SubgraphId

SINGLES = 3
"""Single-decision plans that are timed, the predicted best first."""

Decisions = Mapping[SubgraphId, Decision]


def ways(problem: PlanningProblem) -> Iterator[tuple[str, str, Decisions]]:
    """Every way to choose: what is free, with what fixed, and the plan."""
    yield "joint", "", choose(problem, strategy="joint").decisions
    yield "score", "", choose(problem, strategy="score").decisions
    for unit in problem.units:
        only_unit = best_with(problem, lambda _, option, unit=unit: option.decision.unit == unit)
        yield "layouts alone", unit, only_unit
    for layout in problem.layouts:
        only_layout = best_with(
            problem, lambda _, option, layout=layout: option.decision.layout == layout
        )
        yield "units alone", layout, only_layout
    for single in single_plans(problem)[:SINGLES]:
        yield "single", single.name.removesuffix(" everywhere"), single.decisions


def rows(model: str, threads: int) -> Iterator[dict[str, Any]]:
    """Predicted and measured time of every way to choose for `model`."""
    session = Session.open(model, threads=threads)
    problem = priced_problem(Offers.of(session), "measured")
    plans = {(free, fixed): decisions for free, fixed, decisions in ways(problem)}
    models = {}
    for key, decisions in plans.items():
        cost_us = problem.cost(decisions).total_us
        solution = Solution(
            decisions=decisions, cost_us=cost_us, bound_us=0.0, solver="", time_s=0.0
        )
        models[key] = finish(session, explained_plan(session, problem, solution, key[0]), None)
    inputs = random_inputs(session.model.inputs)
    names = {" ".join(key): key for key in models}
    times = race(
        {name: models[key].timed_call(inputs) for name, key in names.items()}, rounds=25, turn_s=0.1
    )
    joint_us = times[" ".join(("joint", ""))].median_us
    for name, (free, fixed) in names.items():
        yield {
            "model": case_name(model),
            "free": free,
            "fixed": fixed,
            "predicted_us": round(problem.cost(plans[free, fixed]).total_us, 1),
            "median_us": round(times[name].median_us, 1),
            "spread_us": round(times[name].spread_us, 1),
            "runs": times[name].runs,
            "times_joint": round(times[name].median_us / joint_us, 4),
        }


if __name__ == "__main__":
    run(rows, __doc__)
