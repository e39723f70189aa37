"""Explanation of a plan as data: alternatives with their costs, boundaries, declines, gains."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from layoutsel.cost.tensor import KINDS
from layoutsel.documents import OPTIONAL
from layoutsel.planning.gains import Gains, gains_of
from layoutsel.planning.objectives import objective_of
from layoutsel.planning.other_plans import OtherPlans
from layoutsel.planning.problem import Boundary, PlanningProblem, boundaries_of
from layoutsel.planning.tables import to_choice, to_decisions
from layoutsel.planning.values import SUM
from tvm_passes.decision import Decision, SubgraphId
from tvm_passes.errors import Decline


@dataclass(frozen=True, kw_only=True)
class Counterfactual:
    """Costs of another decision for one sub-graph."""

    decision: Decision
    """The other decision."""
    cost_us: float
    """Time of the sub-graph itself, microseconds, without boundaries."""
    spread_us: float
    """Uncertainty of `cost_us`, microseconds."""
    source: str
    """Origin of `cost_us`."""
    extra_us: float | None
    """Additional sum of costs of the whole plan with this decision, microseconds.

    It is the sum of `own_us`, `transforms_us`, `crossings_us` and `others_us`. None if no plan with
    this decision was found, within the time limit or near enough to the best cost.
    """
    own_us: float
    """Additional time of the sub-graph itself, microseconds."""
    transforms_us: float | None
    """Additional time of all layout transforms of the plan, microseconds."""
    crossings_us: float | None
    """Additional time of all hand-overs and copies of the plan, microseconds."""
    others_us: float | None
    """Additional time of the sub-graphs that would then decide otherwise, microseconds."""
    others: int | None
    """Number of other sub-graphs that would then decide otherwise."""
    loss: float | None = field(default=None, metadata=OPTIONAL)
    """Amount by which the objective's value gets worse, in its unit; None if it is `extra_us`."""
    excess: float = field(default=0.0, metadata=OPTIONAL)
    """Amount by which the plan with this decision exceeds the problem's limits; 0 if within."""

    @property
    def extra(self) -> float | None:
        """Amount by which the whole plan gets worse, in its objective's unit; None if unknown."""
        return self.extra_us if self.loss is None else self.loss

    @property
    def rank(self) -> tuple[float, float]:
        """Sort key, smallest for the best: the excess, then :attr:`extra`."""
        return self.excess, math.inf if self.extra is None else self.extra


@dataclass(frozen=True, kw_only=True)
class ExplainedSubgraph:
    """A sub-graph with its decision and the reasons."""

    id: SubgraphId
    """Identifier of the sub-graph."""
    operators: tuple[str, ...]
    """Names of its operators."""
    decision: Decision
    """Decision of the plan."""
    cost_us: float
    """Time of the sub-graph, microseconds, without boundaries."""
    spread_us: float
    """Uncertainty of `cost_us`, microseconds."""
    source: str
    """Origin of `cost_us`."""
    alternatives: tuple[Counterfactual, ...]
    """All other candidates, the best for the whole plan first."""
    declines: tuple[Decline, ...]
    """Declined decisions with reasons."""


@dataclass(frozen=True, kw_only=True)
class Explanation:
    """A plan with its reasons."""

    subgraphs: tuple[ExplainedSubgraph, ...]
    """Explanation of each sub-graph."""
    boundaries: tuple[Boundary, ...]
    """Transforms, crossings and copies of the plan, the costliest first."""
    gains: Gains
    """Predicted times of plans from simpler ways of choosing."""
    exact: bool
    """True if each alternative's cost is that of the best plan with it.

    False if all other decisions stayed the same: the costs are then upper bounds.
    """


def explain(
    problem: PlanningProblem,
    decisions: Mapping[SubgraphId, Decision],
    *,
    time_limit_s: float = 10.0,
) -> Explanation:
    """Explain `decisions` by the problem's objective.

    They may come from any strategy, or be edited by hand.

    Parameters
    ----------
    problem
        Problem with the candidates.
    decisions
        Decision of each sub-graph.
    time_limit_s
        Time limit, seconds.
    """
    cost = problem.cost(decisions)
    others = objective_of(problem.objective).other_plans(problem, decisions, time_limit_s / 3)
    ways = _Ways(problem=problem, choice=tuple(to_choice(problem, decisions)), others=others)
    subgraphs = []
    for position, node in enumerate(problem.nodes):
        chosen = node.options[ways.choice[position]]
        alternatives = [
            _counterfactual(ways, position, number)
            for number in range(len(node.options))
            if number != ways.choice[position]
        ]
        subgraphs.append(
            ExplainedSubgraph(
                id=node.id,
                operators=node.operators,
                decision=chosen.decision,
                cost_us=chosen.cost_us,
                spread_us=chosen.spread_us,
                source=chosen.source,
                alternatives=tuple(sorted(alternatives, key=lambda other: other.rank)),
                declines=node.declines,
            )
        )
    return Explanation(
        subgraphs=tuple(subgraphs),
        boundaries=tuple(sorted(cost.boundaries, key=lambda boundary: -boundary.cost_us)),
        gains=gains_of(problem, decisions, 2 * time_limit_s / 3),
        exact=others.exact,
    )


@dataclass(frozen=True, kw_only=True)
class _Ways:
    """The explained plan with the plans to compare it with."""

    problem: PlanningProblem
    """Problem of the plan."""
    choice: tuple[int, ...]
    """Option of each sub-graph in the explained plan."""
    others: OtherPlans
    """Plans that take other candidates."""

    def loss(self, position: int, number: int) -> float:
        """Return the loss of a plan that takes an option of a sub-graph; infinite if unknown."""
        return float(self.others.losses[position][number])

    @cached_property
    def tensors_of(self) -> Mapping[SubgraphId, tuple[int, ...]]:
        """Indices of the tensors that each sub-graph produces or reads."""
        found: dict[SubgraphId, set[int]] = {node.id: set() for node in self.problem.nodes}
        for number, tensor in enumerate(self.problem.tensors):
            for id_ in (tensor.producer, *(use.consumer for use in tensor.uses)):
                if id_ is not None:
                    found[id_].add(number)
        return {id_: tuple(numbers) for id_, numbers in found.items()}


def _counterfactual(ways: _Ways, position: int, number: int) -> Counterfactual:
    node = ways.problem.nodes[position]
    option, chosen = node.options[number], node.options[ways.choice[position]]
    own_us = option.cost_us - chosen.cost_us
    known: dict[str, Any] = dict.fromkeys(
        ("extra_us", "transforms_us", "crossings_us", "others_us", "others")
    )
    loss = ways.loss(position, number)
    if math.isfinite(loss):
        then = ways.others.choice(position, number)
        parts = _parts(ways, position, then)
        known = {
            **vars(parts),
            "extra_us": own_us + parts.more_us,
            **_by_objective(ways, loss, then),
        }
    return Counterfactual(
        decision=option.decision,
        cost_us=option.cost_us,
        spread_us=option.spread_us,
        source=option.source,
        own_us=own_us,
        **known,
    )


def _by_objective(ways: _Ways, loss: float, then: tuple[int, ...]) -> dict[str, float]:
    """Loss and excess, if the objective is not the sum of costs."""
    problem = ways.problem
    if problem.objective == SUM:
        return {}
    excess = objective_of(problem.objective).excess(problem, to_decisions(problem, then))
    return {"loss": loss, "excess": excess}


@dataclass(frozen=True, kw_only=True)
class _Parts:
    """Additional costs of another plan, except those of the sub-graph in question.

    The fields are those of :class:`Counterfactual`.
    """

    transforms_us: float
    """Additional time of all layout transforms, microseconds."""
    crossings_us: float
    """Additional time of all hand-overs and copies, microseconds."""
    others_us: float
    """Additional time of sub-graphs that decide otherwise, microseconds."""
    others: int
    """Number of sub-graphs that decide otherwise."""

    @property
    def more_us(self) -> float:
        """Sum of all parts, microseconds."""
        return self.transforms_us + self.crossings_us + self.others_us


def _parts(ways: _Ways, position: int, then: tuple[int, ...]) -> _Parts:
    nodes, now = ways.problem.nodes, ways.choice
    changed = [i for i in range(len(nodes)) if then[i] != now[i]]
    others_us = [
        nodes[i].options[then[i]].cost_us - nodes[i].options[now[i]].cost_us
        for i in changed
        if i != position
    ]
    touched = {t for i in changed for t in ways.tensors_of[nodes[i].id]}
    more_us = dict.fromkeys(KINDS, 0.0)
    for choice, sign in ((then, 1), (now, -1)):
        chosen = {node.id: node.options[number] for node, number in zip(nodes, choice, strict=True)}
        for t in sorted(touched):
            for boundary in boundaries_of(ways.problem.tensors[t], chosen):
                more_us[boundary.kind] += sign * boundary.cost_us
    return _Parts(
        transforms_us=more_us["transform"],
        crossings_us=more_us["crossing"] + more_us["copy"],
        others_us=sum(others_us),
        others=len(others_us),
    )
