"""Value of information: the candidates whose cost is worth measuring, because knowing it could change the plan.

For every sub-graph, the chosen candidate and another are compared: `delta` is how much more the best plan with the other
one costs, `sigma` how uncertain the difference of the two candidates' costs is. With a normal error, knowing the
difference is worth the expected improvement::

    sigma * (pdf(u) - u * (1 - cdf(u))),  u = delta / sigma

Jones, Schonlau, Welch, "Efficient global optimization of expensive black-box functions" (1998), equation 15.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from layoutsel.planning.marginals import conditional_marginals, min_marginals
from layoutsel.planning.problem import Option, PlanningProblem, PricedSubgraph
from layoutsel.planning.solve import solve
from layoutsel.planning.tables import build_tables, to_choice
from tvm_passes.decision import Decision, SubgraphId

MEASURED = "measured"
"""Source of a cost that was measured; measuring it again adds nothing."""
_TO_SIGMA = 1 / 0.6745
"""Standard deviation of a normal distribution, in half distances of its quartiles."""

Candidate = tuple[SubgraphId, Decision]


@dataclass(frozen=True, kw_only=True)
class InformationValue:
    """Expected gain of knowing uncertain costs exactly, for one plan."""

    worth_us: Mapping[Candidate, float]
    """Expected improvement from knowing one candidate's cost, microseconds; candidates without any are absent."""
    loss_us: float
    """Expected improvement from knowing every cost, microseconds: the loss that uncertainty may cause."""
    exact: bool
    """True if the rest of the plan was optimised around each candidate; False if it was kept, so values are too low."""


def value_of_information(
    problem: PlanningProblem, decisions: Mapping[SubgraphId, Decision]
) -> InformationValue:
    """Compute the value of knowing each uncertain cost of `problem`, given its best plan, `decisions`."""
    tables = build_tables(problem)
    choice = tuple(to_choice(problem, decisions))
    best_us = tables.total(choice)
    marginals = min_marginals(tables, best_us, time_limit_s=2.0)
    exact = marginals is not None
    if marginals is None:
        marginals = conditional_marginals(tables, choice, best_us)
    worth: dict[Candidate, float] = {}
    loss_us = 0.0
    for node, mine, totals in zip(problem.nodes, choice, marginals, strict=True):
        gains = _gains(node, mine, np.asarray(totals) - best_us)
        loss_us += max(gains.values(), default=0.0)
        for position, gain in gains.items():
            for option in (node.options[position], node.options[mine]):
                if option.source != MEASURED:
                    key = (node.id, option.decision)
                    worth[key] = worth.get(key, 0.0) + gain
    return InformationValue(worth_us=worth, loss_us=loss_us, exact=exact)


def _gains(node: PricedSubgraph, mine: int, deltas: np.ndarray) -> dict[int, float]:
    """Expected improvement per option of `node` whose comparison with the chosen option, `mine`, is uncertain."""
    gains = {}
    for position, option in enumerate(node.options):
        sigma = _TO_SIGMA * math.hypot(_unknown_us(option), _unknown_us(node.options[mine]))
        if position != mine and sigma > 0 and math.isfinite(deltas[position]):
            gain = expected_improvement(max(float(deltas[position]), 0.0), sigma)
            if gain > 0:
                gains[position] = gain
    return gains


def _unknown_us(option: Option) -> float:
    return 0.0 if option.source == MEASURED else option.spread_us


def expected_improvement(delta: float, sigma: float) -> float:
    """Expected gain of knowing a difference with mean `delta` and standard deviation `sigma`."""
    u = delta / sigma
    density = math.exp(-u * u / 2) / math.sqrt(2 * math.pi)
    return sigma * (density - u * 0.5 * math.erfc(u / math.sqrt(2)))


def bound_within_spread(problem: PlanningProblem, *, time_limit_s: float = 5.0) -> float:
    """Lower bound on every plan, microseconds, if no cost is lower than its spread allows."""
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
    """Copy the problem with options replaced by `price`; None drops one, unless it is the last of its node."""

    def options(node: PricedSubgraph) -> tuple[Option, ...]:
        priced = [price(node, option) for option in node.options]
        return tuple(option for option in priced if option is not None) or node.options[:1]

    nodes = tuple(replace(node, options=options(node)) for node in problem.nodes)
    return replace(problem, nodes=nodes)
