"""Trade-off of time and error: the fastest plans for their error, from fast to exact.

Errors of independent roundings add in squares: a candidate adds the square of its precision's local
error. Minimising ``time + λ · squared error`` gives, for each λ, a plan that no other plan beats in
both. The values of λ are those of the chords between neighbouring plans; Eisner, Severance,
"Mathematical techniques for efficient record segmentation in large shared databases" (JACM 23(4),
1976). Each of these minima, minus ``λ · limit²``, is also a lower bound on the time of all plans
whose error is within the limit (Lagrangian relaxation).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from layoutsel.core.precision import REL_ERROR, local_error
from layoutsel.planning.problem import Option, PlanningProblem, PricedSubgraph
from layoutsel.planning.solve import Solution
from layoutsel.planning.strategies import choose
from layoutsel.planning.values import WITHIN_ERROR
from tvm_passes.decision import Decision, SubgraphId

MOST_PLANS = 8
"""Maximum number of plans in a trade-off; each may have to be built to measure its error."""
_SAME = 1e-9
"""Relative difference of equal costs."""


@dataclass(frozen=True, kw_only=True)
class TradeOff:
    """A plan of a trade-off, as in plan files and artifacts."""

    cost_us: float
    """Predicted time, microseconds."""
    error: float
    """Predicted relative L2 error."""
    weight_us: float
    """λ, the price of one unit of squared error, microseconds; 0 for both ends of the trade-off."""
    precisions: Mapping[str, int]
    """Number of sub-graphs in each precision."""
    chosen: bool = False
    """True for the plan of this file."""
    measured_us: float | None = None
    """Median time of whole runs, microseconds; None without a race."""
    rel_l2_err: float | None = None
    """Largest measured relative L2 error of an output or its logits; None if not built."""


@dataclass(frozen=True, kw_only=True)
class Weighed:
    """The best plan for some λ."""

    solution: Solution
    """Solution, priced by time alone; the bound holds for plans of no larger predicted error."""
    weight_us: float
    """λ, microseconds per unit of squared error."""
    squared_error: float
    """Predicted squared relative L2 error."""

    @property
    def error(self) -> float:
        """Predicted relative L2 error."""
        return math.sqrt(self.squared_error)


@dataclass(frozen=True)
class _Sweep:
    """Search for the best plans of one problem for several λ."""

    problem: PlanningProblem
    """Problem to solve."""
    strategy: str
    """Entry of :data:`~layoutsel.planning.strategies.STRATEGIES`."""
    time_limit_s: float
    """Time limit of each plan, seconds."""
    found: dict[tuple[Decision, ...], Weighed] = field(default_factory=dict)
    """Distinct plans found so far, by their decisions."""
    cuts: list[tuple[float, float]] = field(default_factory=list)
    """Each λ tried, with a lower bound on ``time + λ · squared error``, microseconds."""

    def weighed(self, weight_us: float) -> Weighed:
        """Find the best plan for λ = `weight_us`."""
        solution = self._chosen(weigh(self.problem, weight_us))
        self.cuts.append((weight_us, solution.bound_us))
        return self._kept(solution, weight_us)

    def exactest(self) -> Weighed:
        """Find the fastest of the most exact plans."""
        return self._kept(self._chosen(most_exact(self.problem)), 0.0)

    def between(self, faster: Weighed, exacter: Weighed) -> Weighed | None:
        """Find a plan below the chord of two others; None if there is none."""
        gained = faster.squared_error - exacter.squared_error
        weight_us = (exacter.solution.cost_us - faster.solution.cost_us) / gained
        plan = self.weighed(weight_us)
        chord = faster.solution.cost_us + weight_us * faster.squared_error
        value = plan.solution.cost_us + weight_us * plan.squared_error
        return plan if value < chord * (1 - _SAME) else None

    def bound_us(self, exactest: Weighed, error: float) -> float:
        """Compute a lower bound on the time of plans within `error`, microseconds.

        If there are none, the bound is that of the most exact plans.
        """
        if exactest.squared_error > error**2:
            return exactest.solution.bound_us
        return max(bound_us - weight_us * error**2 for weight_us, bound_us in self.cuts)

    def _chosen(self, problem: PlanningProblem) -> Solution:
        return choose(problem, strategy=self.strategy, time_limit_s=self.time_limit_s)

    def _kept(self, solution: Solution, weight_us: float) -> Weighed:
        """Price a solution by time alone, and keep it unless an equal plan was found before."""
        squared = squared_error(solution.decisions)
        priced = replace(
            solution,
            cost_us=self.problem.cost(solution.decisions).total_us,
            bound_us=max(solution.bound_us - weight_us * squared, 0.0),
        )
        key = tuple(solution.decisions[node.id] for node in self.problem.nodes)
        plan = Weighed(solution=priced, weight_us=weight_us, squared_error=squared)
        return self.found.setdefault(key, plan)


def trade_offs(
    problem: PlanningProblem,
    *,
    strategy: str = "joint",
    most: int = MOST_PLANS,
    time_limit_s: float = 10.0,
) -> tuple[Weighed, ...]:
    """Find up to `most` plans, none of which is beaten in both time and error, the fastest first.

    The first is the fastest of all, the last the fastest of the most exact ones. Between them, the
    gap with the largest ratio of errors is divided first. Each plan takes up to `time_limit_s`
    seconds. If the problem limits the error, the solutions have a bound on
    :data:`~layoutsel.planning.values.WITHIN_ERROR`.
    """
    sweep = _Sweep(problem, strategy, time_limit_s)
    fastest, exactest = sweep.weighed(0.0), sweep.exactest()
    plans, open_ = [fastest, exactest], [(fastest, exactest)]
    if exactest.squared_error >= fastest.squared_error:
        plans, open_ = [exactest], []
    while open_ and len(plans) < most:
        pair = max(open_, key=lambda pair: pair[0].squared_error / pair[1].squared_error)
        open_.remove(pair)
        plan = sweep.between(*pair)
        if plan is not None and plan not in plans:
            plans.append(plan)
            open_ += [(pair[0], plan), (plan, pair[1])]
    plans.sort(key=lambda plan: -plan.squared_error)
    if REL_ERROR not in problem.limits:
        return tuple(plans)
    bounds = {WITHIN_ERROR: sweep.bound_us(exactest, problem.limits[REL_ERROR])}
    return tuple(replace(p, solution=replace(p.solution, bounds=bounds)) for p in plans)


def predicted_within(plans: Sequence[Weighed], error: float) -> Weighed:
    """Find the fastest of `plans` with a predicted error of at most `error`, or the most exact."""
    return next((plan for plan in plans if plan.error <= error), plans[-1])


def squared_error(decisions: Mapping[SubgraphId, Decision]) -> float:
    """Predict the squared relative L2 error of a plan."""
    return sum(local_error(decision.precision) ** 2 for decision in decisions.values())


def weigh(problem: PlanningProblem, weight_us: float) -> PlanningProblem:
    """Copy the problem with `weight_us` times the squared error added to each candidate's cost."""

    def dearer(option: Option) -> Option:
        squared = local_error(option.decision.precision) ** 2
        return replace(option, cost_us=option.cost_us + weight_us * squared)

    nodes = tuple(replace(node, options=tuple(map(dearer, node.options))) for node in problem.nodes)
    return replace(problem, nodes=nodes)


def most_exact(problem: PlanningProblem) -> PlanningProblem:
    """Copy the problem with only the most exact candidates of each sub-graph."""

    def least(node: PricedSubgraph) -> float:
        return min(local_error(option.decision.precision) for option in node.options)

    return problem.restrict(
        lambda node, option: local_error(option.decision.precision) == least(node)
    )


def curve(plans: Iterable[Weighed], chosen: Weighed | None) -> tuple[TradeOff, ...]:
    """Convert `plans` to the form of plan files, without measurements."""
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
