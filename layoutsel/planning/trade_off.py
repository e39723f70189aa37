"""Time against error: the plans that are fastest for their error, from the fastest of all to the most exact.

Errors of independent roundings add in squares, so a candidate weighs its precision's local error squared, and a plan the
sum of these. Whoever minimises ``time + λ · squared error`` by the planner finds, for each λ, a plan that no other beats in
both. The λ worth trying are those of the chords between neighbouring plans; Eisner, Severance, "Mathematical techniques for
efficient record segmentation in large shared databases" (JACM 23(4), 1976).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from layoutsel.planning.problem import Node, Option, PlanningProblem
from layoutsel.planning.solve import Solution
from layoutsel.planning.strategies import choose
from layoutsel.precision import LOCAL_ERRORS
from tvm_passes.decision import Decision, SubgraphId

MOST_PLANS = 8
"""Plans of a trade-off: each may have to be built to measure its error."""
_SAME = 1e-9
"""Relative difference of costs that are equal."""


@dataclass(frozen=True, kw_only=True)
class TradeOff:
    """One plan of the curve, as plan files and artifacts keep it."""

    cost_us: float
    """Predicted time, microseconds."""
    error: float
    """Predicted relative L2 error."""
    weight_us: float
    """λ: what the unit of squared error was taken to cost, microseconds; 0 as well for the most exact plan, which was
    found among those of its precision."""
    precisions: Mapping[str, int]
    """How many sub-graphs are computed in each precision."""
    chosen: bool = False
    """Whether it is the plan of this file."""
    measured_us: float | None = None
    """Median of whole runs, microseconds; None where it was not raced."""
    rel_l2_err: float | None = None
    """Largest measured relative L2 error of an output, logits included; None where it was not built."""


@dataclass(frozen=True, kw_only=True)
class Weighed:
    """A plan that is best for some λ."""

    solution: Solution
    """Priced in microseconds alone. Its bound holds for every plan of no larger predicted error."""
    weight_us: float
    """λ, microseconds per unit of squared error."""
    squared_error: float
    """Predicted."""

    @property
    def error(self) -> float:
        """Predicted relative L2 error."""
        return math.sqrt(self.squared_error)


@dataclass(frozen=True)
class _Sweep:
    """Solves a problem for one λ after the other."""

    problem: PlanningProblem
    strategy: str
    found: dict[tuple[Decision, ...], Weighed] = field(default_factory=dict)

    def solve(self, problem: PlanningProblem, weight_us: float) -> Weighed:
        """The best plan of `problem`, whose errors are weighed with `weight_us`."""
        solution = choose(problem, strategy=self.strategy)
        squared = squared_error(solution.decisions)
        priced = replace(
            solution,
            cost_us=self.problem.cost(solution.decisions).total_us,
            bound_us=max(solution.bound_us - weight_us * squared, 0.0),
        )
        key = tuple(solution.decisions[node.id] for node in self.problem.nodes)
        plan = Weighed(solution=priced, weight_us=weight_us, squared_error=squared)
        return self.found.setdefault(key, plan)

    def between(self, faster: Weighed, exacter: Weighed) -> Weighed | None:
        """A plan below the chord of two; None where there is none."""
        gained = faster.squared_error - exacter.squared_error
        weight_us = (exacter.solution.cost_us - faster.solution.cost_us) / gained
        plan = self.solve(weigh(self.problem, weight_us), weight_us)
        chord = faster.solution.cost_us + weight_us * faster.squared_error
        value = plan.solution.cost_us + weight_us * plan.squared_error
        return plan if value < chord * (1 - _SAME) else None


def trade_offs(
    problem: PlanningProblem, *, strategy: str = "joint", most: int = MOST_PLANS
) -> tuple[Weighed, ...]:
    """Up to `most` plans, none of which is beaten by another in both time and predicted error, the fastest first.

    The first is the plan without any regard for error, the last the fastest of the most exact ones. Where there are more
    between them, neighbours whose errors differ the most are parted first.
    """
    sweep = _Sweep(problem, strategy)
    fastest = sweep.solve(problem, 0.0)
    exactest = sweep.solve(most_exact(problem), 0.0)
    if exactest.squared_error >= fastest.squared_error:
        return (exactest,)
    plans, open_ = [fastest, exactest], [(fastest, exactest)]
    while open_ and len(plans) < most:
        pair = max(open_, key=lambda pair: pair[0].squared_error / pair[1].squared_error)
        open_.remove(pair)
        plan = sweep.between(*pair)
        if plan is not None and plan not in plans:
            plans.append(plan)
            open_ += [(pair[0], plan), (plan, pair[1])]
    return tuple(sorted(plans, key=lambda plan: -plan.squared_error))


def predicted_within(plans: Sequence[Weighed], error: float) -> Weighed:
    """The fastest of `plans` whose predicted error is at most `error`; the most exact one where none is."""
    return next((plan for plan in plans if plan.error <= error), plans[-1])


def squared_error(decisions: Mapping[SubgraphId, Decision]) -> float:
    """Predicted squared error of a plan."""
    return sum(LOCAL_ERRORS[decision.precision] ** 2 for decision in decisions.values())


def weigh(problem: PlanningProblem, weight_us: float) -> PlanningProblem:
    """Copy the problem with every candidate dearer by `weight_us` times its squared error."""

    def dearer(option: Option) -> Option:
        squared = LOCAL_ERRORS[option.decision.precision] ** 2
        return replace(option, cost_us=option.cost_us + weight_us * squared)

    nodes = tuple(replace(node, options=tuple(map(dearer, node.options))) for node in problem.nodes)
    return replace(problem, nodes=nodes)


def most_exact(problem: PlanningProblem) -> PlanningProblem:
    """Copy the problem with only the most exact candidates of each sub-graph."""

    def least(node: Node) -> float:
        return min(LOCAL_ERRORS[option.decision.precision] for option in node.options)

    return problem.restrict(
        lambda node, option: LOCAL_ERRORS[option.decision.precision] == least(node)
    )


def curve(plans: Iterable[Weighed], chosen: Weighed | None) -> tuple[TradeOff, ...]:
    """`plans` as they are kept, before anything is measured."""
    return tuple(
        TradeOff(
            cost_us=plan.solution.cost_us,
            error=plan.error,
            weight_us=plan.weight_us,
            precisions=dict(
                Counter(decision.precision for decision in plan.solution.decisions.values())
            ),
            chosen=plan is chosen,
        )
        for plan in plans
    )
