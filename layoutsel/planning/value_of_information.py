"""Value of information: candidates whose measurement could change the plan.

For every sub-graph, the chosen candidate is compared with each other one. `delta` is the loss of
the best plan with the other one, in the problem's objective, and `scale` the uncertainty of that
loss, due to the two candidates' costs. Knowing the difference is worth the expected improvement:
the integral of the probability that the loss is wrong by more than `x`, for `x` from `delta` on
(Jones, Schonlau, Welch, "Efficient global optimization of expensive black-box functions", 1998,
equation 14). Errors of predictions have heavy tails: those of held-out networks follow Student's
distribution with two degrees of freedom closely, up to the largest of a hundred. The integral then
has the closed form::

    scale**2 / (sqrt(delta**2 + 2 * scale**2) + delta)
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from layoutsel.planning.objectives import objective_of
from layoutsel.planning.problem import Option, PlanningProblem, PricedSubgraph
from layoutsel.planning.solve import solve
from layoutsel.planning.tables import to_choice
from tvm_passes.decision import Decision, SubgraphId

MEASURED = "measured"
"""Source of a measured cost, which another measurement would not improve."""
_TO_SCALE = 1 / 0.8165
"""Scale of Student's distribution of two degrees of freedom, relative to half its interquartile
range."""

TIME_LIMIT_S = 2.0
"""Usual time limit of the comparison with other plans, and of that of costs, seconds."""

Candidate = tuple[SubgraphId, Decision]
"""A sub-graph and a decision."""


@dataclass(frozen=True, kw_only=True)
class InformationValue:
    """Expected gain of knowing uncertain costs exactly, for one plan, in the objective's unit."""

    worth: Mapping[Candidate, float]
    """Expected improvement from knowing one candidate's cost; candidates without any are absent."""
    loss: float
    """Expected improvement from knowing every cost: the potential loss by uncertainty.

    It is at most the value of the plan, as no plan costs less than nothing; the normal errors of
    very uncertain costs ignore that.
    """
    exact: bool
    """True if the rest of the plan was optimised around each candidate; else values are too low."""


def value_of_information(
    problem: PlanningProblem,
    decisions: Mapping[SubgraphId, Decision],
    *,
    time_limit_s: float = TIME_LIMIT_S,
) -> InformationValue:
    """Compute the value of knowing each uncertain cost of `problem`, given its best plan.

    The comparison with other plans takes up to `time_limit_s` seconds, and so does that of costs.
    """
    others = objective_of(problem.objective).other_plans(problem, decisions, time_limit_s)
    shares = _Shares.of(problem, decisions, time_limit_s)
    worth: dict[Candidate, float] = {}
    loss = 0.0
    for node, mine, losses in zip(
        problem.nodes, to_choice(problem, decisions), others.losses, strict=True
    ):
        gains = _gains(node, mine, losses, shares.of_node(node))
        loss += max(gains.values(), default=0.0)
        for position, gain in gains.items():
            for option in (node.options[position], node.options[mine]):
                if option.source != MEASURED:
                    key = (node.id, option.decision)
                    worth[key] = worth.get(key, 0.0) + gain
    return InformationValue(worth=worth, loss=min(loss, shares.value), exact=others.exact)


def _gains(node: PricedSubgraph, mine: int, losses: np.ndarray, share: float) -> dict[int, float]:
    """Compute the expected improvement per option of `node` that may be better than `mine`.

    The objective changes by `share` of a change of the costs.
    """
    gains = {}
    for position, option in enumerate(node.options):
        unknown_us = math.hypot(_unknown_us(option), _unknown_us(node.options[mine]))
        scale = share * _TO_SCALE * unknown_us
        if position != mine and scale > 0 and math.isfinite(losses[position]):
            gain = expected_improvement(max(float(losses[position]), 0.0), scale)
            if gain > 0:
                gains[position] = gain
    return gains


@dataclass(frozen=True)
class _Shares:
    """Shares of a change of a sub-graph's cost that appear in the objective.

    A makespan does not change if another path is longer.
    """

    problem: PlanningProblem
    """Problem of the plan."""
    decisions: Mapping[SubgraphId, Decision]
    """Decision of each sub-graph."""
    value: float
    """Value of the plan, in the objective's unit."""
    deadline: float
    """Deadline by :func:`time.monotonic`, seconds; later, all shares are 1."""

    @classmethod
    def of(
        cls,
        problem: PlanningProblem,
        decisions: Mapping[SubgraphId, Decision],
        time_limit_s: float,
    ) -> _Shares:
        """Make the shares of one plan."""
        value = objective_of(problem.objective).assess(problem, decisions).value
        return cls(problem, decisions, value, time.monotonic() + time_limit_s)

    def of_node(self, node: PricedSubgraph) -> float:
        """Compute the largest ratio of a change of the value to one of the sub-graph's cost."""
        unknown_us = max(map(_unknown_us, node.options))
        is_additive = objective_of(self.problem.objective).is_additive
        if is_additive or unknown_us == 0 or time.monotonic() >= self.deadline:
            return 1.0
        cost_us = node.option(self.decisions[node.id]).cost_us
        return max(self._felt(node, more) for more in (unknown_us, max(-unknown_us, -cost_us)))

    def _felt(self, node: PricedSubgraph, more_us: float) -> float:
        """Compute the change of the value relative to `more_us` of the sub-graph's cost."""
        mine = node.option(self.decisions[node.id])
        changed = replace(mine, cost_us=mine.cost_us + more_us)
        nodes = tuple(
            replace(other, options=tuple(changed if o is mine else o for o in other.options))
            for other in self.problem.nodes
        )
        problem = replace(self.problem, nodes=nodes)
        value = objective_of(problem.objective).assess(problem, self.decisions).value
        return abs(value - self.value) / abs(more_us) if more_us else 0.0


def _unknown_us(option: Option) -> float:
    return 0.0 if option.source == MEASURED else option.spread_us


def expected_improvement(delta: float, scale: float) -> float:
    """Compute the expected gain of knowing a difference with a Student-distributed error.

    Parameters
    ----------
    delta
        Median of the difference.
    scale
        Scale of its distribution, which has two degrees of freedom.
    """
    return scale * (scale / (math.hypot(delta, math.sqrt(2) * scale) + delta))


def bound_within_spread(problem: PlanningProblem, *, time_limit_s: float = 5.0) -> float:
    """Compute a lower bound on all plans, if costs are as low as their spreads allow.

    Returns
    -------
    float
        Bound on the sum of costs, microseconds.
    """
    nodes = tuple(
        replace(
            node,
            options=tuple(
                replace(option, cost_us=max(option.cost_us - option.spread_us, 0.0))
                for option in node.options
            ),
        )
        for node in problem.nodes
    )
    return solve(replace(problem, nodes=nodes), time_limit_s=time_limit_s).bound_us


def reprice(
    problem: PlanningProblem, price: Callable[[PricedSubgraph, Option], Option | None]
) -> PlanningProblem:
    """Copy the problem with each option replaced by the result of `price`.

    The result None drops the option. A node whose options would all be dropped keeps the first.
    """

    def options(node: PricedSubgraph) -> tuple[Option, ...]:
        priced = [price(node, option) for option in node.options]
        return tuple(option for option in priced if option is not None) or node.options[:1]

    nodes = tuple(replace(node, options=options(node)) for node in problem.nodes)
    return replace(problem, nodes=nodes)
