"""Other plans: for each candidate, a plan that takes it, compared with a given plan."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from layoutsel.planning.marginals import conditional_marginals, forced_plans
from layoutsel.planning.problem import Option, PlanningProblem, PricedSubgraph
from layoutsel.planning.tables import build_tables, to_choice
from tvm_passes.decision import Decision, SubgraphId

_LOG = logging.getLogger(__name__)

Decisions = Mapping[SubgraphId, Decision]
"""Decision of each sub-graph."""
Loss = Callable[[Decisions], float]
"""Function that returns the loss of a plan against a given one, in the objective's unit.

It is negative for a better plan.
"""


@dataclass(frozen=True, kw_only=True)
class OtherPlans:
    """For each candidate of each sub-graph, a plan that takes it."""

    losses: list[np.ndarray]
    """Loss of each plan, by sub-graph and option, in the objective's unit; infinite if unknown."""
    choice: Callable[[int, int], tuple[int, ...]]
    """Function of (sub-graph, option) that returns the option of every sub-graph in that plan.

    The loss of the plan must be finite.
    """
    exact: bool
    """True if each is the best plan with its candidate; False if losses are upper bounds."""


def alone(node: PricedSubgraph, option: Option) -> tuple[Decisions]:
    """Return a change of one decision: `node` takes `option`, all others stay."""
    return ({node.id: option.decision},)


def changed(
    problem: PlanningProblem,
    decisions: Decisions,
    loss: Loss,
    time_limit_s: float,
    changes: Callable[[PricedSubgraph, Option], Iterable[Decisions]] = alone,
) -> OtherPlans:
    """Change a few decisions at a time, the costliest sub-graphs first, within a time limit.

    Parameters
    ----------
    problem, decisions
        The given plan.
    loss
        Function that compares plans with it.
    time_limit_s
        Time limit, seconds; the loss of remaining candidates is unknown.
    changes
        Function of (sub-graph, candidate) that yields changes with the candidate; the best one
        counts.
    """
    deadline = time.monotonic() + time_limit_s
    losses = [np.full(len(node.options), np.inf) for node in problem.nodes]
    plans: dict[tuple[int, int], Decisions] = {}
    costs = problem.cost(decisions).subgraphs
    for position in sorted(range(len(losses)), key=lambda i: -costs[problem.nodes[i].id]):
        if time.monotonic() >= deadline:
            _LOG.info("no time is left to compare all decisions with others")
            break
        node = problem.nodes[position]
        for number, option in enumerate(node.options):
            tried = [{**decisions, **change} for change in changes(node, option)]
            found, plan = min(((loss(one), one) for one in tried), key=lambda pair: pair[0])
            losses[position][number], plans[position, number] = found, plan

    def choice(node: int, option: int) -> tuple[int, ...]:
        return tuple(to_choice(problem, plans[node, option]))

    return OtherPlans(losses=losses, choice=choice, exact=False)


def least_sums(problem: PlanningProblem, decisions: Decisions, time_limit_s: float) -> OtherPlans:
    """Find the plans with the least sum of costs.

    If the network is too wide, change one decision at a time.
    """
    tables = build_tables(problem)
    choice = tuple(to_choice(problem, decisions))
    total_us = tables.total(choice)
    forced = forced_plans(tables, total_us, time_limit_s=time_limit_s)
    totals = conditional_marginals(tables, choice, total_us) if forced is None else forced.costs
    return OtherPlans(
        losses=[np.asarray(each) - total_us for each in totals],
        choice=one_changed(problem, decisions) if forced is None else forced.choice,
        exact=forced is not None,
    )


def one_changed(
    problem: PlanningProblem, decisions: Decisions
) -> Callable[[int, int], tuple[int, ...]]:
    """Make the function from (sub-graph, option) to the plan with that decision alone changed."""
    choice = tuple(to_choice(problem, decisions))

    def changed(node: int, option: int) -> tuple[int, ...]:
        return (*choice[:node], option, *choice[node + 1 :])

    return changed
