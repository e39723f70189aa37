"""Why a plan is as it is, as data: alternatives and what they would cost, boundaries, declines, gains."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from layoutsel.cost.tensor import KINDS
from layoutsel.planning.alternatives import best_with, single_plans
from layoutsel.planning.marginals import conditional_marginals, forced_plans
from layoutsel.planning.problem import Boundary, PlanningProblem, boundaries_of
from layoutsel.planning.solve import solve
from layoutsel.planning.strategies import choose
from layoutsel.planning.tables import build_tables, to_choice
from tvm_passes.decision import Decision, SubgraphId
from tvm_passes.errors import Decline

_SAME_US = 1e-6


@dataclass(frozen=True, kw_only=True)
class Counterfactual:
    """What another decision for one sub-graph would cost."""

    decision: Decision
    cost_us: float
    """The sub-graph itself, microseconds, boundaries excluded."""
    spread_us: float
    """Uncertainty of `cost_us`, microseconds."""
    source: str
    """Where `cost_us` comes from."""
    extra_us: float | None
    """How much more the whole plan would cost, microseconds; None if that is beyond what was told apart.

    The sum of the four parts below: those of the best plan that takes this decision, less those of the plan explained.
    Where the explanation is not exact, of the same plan with this decision alone changed.
    """
    own_us: float
    """What the sub-graph itself would cost more, microseconds."""
    transforms_us: float | None
    """What the plan's layout transforms together would cost more, microseconds."""
    crossings_us: float | None
    """What the plan's hand-overs between units, copies included, together would cost more, microseconds."""
    others_us: float | None
    """What the sub-graphs that would then decide otherwise cost more by themselves, microseconds."""
    others: int | None
    """How many other sub-graphs would then decide otherwise."""

    @property
    def order_us(self) -> float:
        """`extra_us` as a number to sort and compare by."""
        return math.inf if self.extra_us is None else self.extra_us


@dataclass(frozen=True, kw_only=True)
class ExplainedSubgraph:
    """One sub-graph: who, in which layout, and why."""

    id: SubgraphId
    operators: tuple[str, ...]
    decision: Decision
    cost_us: float
    """Microseconds, boundaries excluded."""
    spread_us: float
    source: str
    """Where `cost_us` comes from."""
    alternatives: tuple[Counterfactual, ...]
    """Every other candidate, the least costly for the whole plan first."""
    declines: tuple[Decline, ...]


@dataclass(frozen=True, kw_only=True)
class Gains:
    """Predicted costs, microseconds, of simpler ways to choose; the differences are what each freedom brings."""

    plan_us: float
    """The explained plan."""
    joint_us: float
    """Unit and layout together."""
    score_us: float
    """Unit by complexity score, then layout."""
    layouts_alone_us: float
    """Best single unit with free layouts (where a sub-graph cannot run on it: wherever it is best)."""
    layouts_alone_unit: str
    units_alone_us: float
    """Best single layout with free units (where a sub-graph does not have it: whichever is best)."""
    units_alone_layout: str
    single_us: float
    """Best single decision for everything."""
    single_name: str


@dataclass(frozen=True, kw_only=True)
class Explanation:
    """A plan with its reasons."""

    subgraphs: tuple[ExplainedSubgraph, ...]
    boundaries: tuple[Boundary, ...]
    """Transforms, crossings and copies that the plan pays for, the costliest first."""
    gains: Gains
    bound_us: float
    gap: float
    """Relative gap between plan and bound."""
    exact: bool
    """True if the alternatives' costs allow the rest of the plan to change; else all else stays, an upper bound."""


def explain(
    problem: PlanningProblem,
    decisions: Mapping[SubgraphId, Decision],
    *,
    time_limit_s: float = 10.0,
) -> Explanation:
    """Explain `decisions`, which may come from any strategy, or be edited by hand."""
    cost = problem.cost(decisions)
    joint = solve(problem, time_limit_s=time_limit_s / 3)
    ways = _ways(problem, decisions, joint.cost_us, time_limit_s / 3)
    subgraphs = []
    for position, node in enumerate(problem.nodes):
        chosen = node.options[ways.choice[position]]
        others = [
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
                alternatives=tuple(sorted(others, key=lambda other: other.order_us)),
                declines=node.declines,
            )
        )
    gap = max(cost.total_us - joint.bound_us, 0.0) / max(cost.total_us, _SAME_US)
    return Explanation(
        subgraphs=tuple(subgraphs),
        boundaries=tuple(sorted(cost.boundaries, key=lambda boundary: -boundary.cost_us)),
        gains=_gains(problem, cost.total_us, joint.cost_us, time_limit_s / 3),
        bound_us=joint.bound_us,
        gap=gap if cost.total_us - joint.bound_us > _SAME_US else 0.0,
        exact=ways.exact,
    )


@dataclass(frozen=True, kw_only=True)
class _Ways:
    """The plan that is explained, and the plans that it is compared with."""

    problem: PlanningProblem
    choice: tuple[int, ...]
    total_us: float
    totals_us: list[np.ndarray]
    """Per node and option, cost of the plan that takes it; infinite where not told apart."""
    with_option: Callable[[int, int], tuple[int, ...]]
    """(node, option) → that plan's choice."""
    exact: bool

    @cached_property
    def tensors_of(self) -> Mapping[SubgraphId, tuple[int, ...]]:
        """Per sub-graph, the numbers of the tensors that it makes or reads."""
        found: dict[SubgraphId, set[int]] = {node.id: set() for node in self.problem.nodes}
        for number, tensor in enumerate(self.problem.tensors):
            for id_ in (tensor.producer, *(use.consumer for use in tensor.uses)):
                if id_ is not None:
                    found[id_].add(number)
        return {id_: tuple(numbers) for id_, numbers in found.items()}


def _ways(
    problem: PlanningProblem,
    decisions: Mapping[SubgraphId, Decision],
    best_us: float,
    time_limit_s: float,
) -> _Ways:
    tables = build_tables(problem)
    choice = tuple(to_choice(problem, decisions))
    total_us = tables.total(choice)
    forced = forced_plans(tables, best_us, time_limit_s=time_limit_s)
    if forced is not None:
        totals_us, with_option = forced.costs, forced.choice
    else:
        totals_us = conditional_marginals(tables, choice, total_us)

        def with_option(node: int, option: int) -> tuple[int, ...]:
            return (*choice[:node], option, *choice[node + 1 :])

    return _Ways(
        problem=problem,
        choice=choice,
        total_us=total_us,
        totals_us=totals_us,
        with_option=with_option,
        exact=forced is not None,
    )


def _counterfactual(ways: _Ways, position: int, number: int) -> Counterfactual:
    node = ways.problem.nodes[position]
    option, chosen = node.options[number], node.options[ways.choice[position]]
    extra_us = float(ways.totals_us[position][number]) - ways.total_us
    told_apart = math.isfinite(extra_us)
    parts = _parts(ways, position, ways.with_option(position, number)) if told_apart else None
    return Counterfactual(
        decision=option.decision,
        cost_us=option.cost_us,
        spread_us=option.spread_us,
        source=option.source,
        extra_us=extra_us if told_apart else None,
        own_us=option.cost_us - chosen.cost_us,
        transforms_us=parts.transforms_us if parts else None,
        crossings_us=parts.crossings_us if parts else None,
        others_us=parts.others_us if parts else None,
        others=parts.others if parts else None,
    )


@dataclass(frozen=True, kw_only=True)
class _Parts:
    """What another plan costs more than the explained one, beside the sub-graph in question; as in Counterfactual."""

    transforms_us: float
    crossings_us: float
    others_us: float
    others: int


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


def _gains(problem: PlanningProblem, plan_us: float, joint_us: float, time_limit_s: float) -> Gains:
    each_s = time_limit_s / (1 + len(problem.units) + len(problem.layouts))

    def best_of(field: str, values: tuple[str, ...]) -> tuple[float, str]:
        costs = []
        for value in values:
            narrowed = best_with(
                problem,
                lambda _, option, value=value: getattr(option.decision, field) == value,  # type: ignore[misc]
                time_limit_s=each_s,
            )
            costs.append((problem.cost(narrowed).total_us, value))
        return min(costs, default=(0.0, ""))

    layouts_alone, units_alone = best_of("unit", problem.units), best_of("layout", problem.layouts)
    singles = single_plans(problem)
    return Gains(
        plan_us=plan_us,
        joint_us=joint_us,
        score_us=choose(problem, strategy="score", time_limit_s=each_s).cost_us,
        layouts_alone_us=layouts_alone[0],
        layouts_alone_unit=layouts_alone[1],
        units_alone_us=units_alone[0],
        units_alone_layout=units_alone[1],
        single_us=singles[0].cost_us if singles else 0.0,
        single_name=singles[0].name if singles else "",
    )
