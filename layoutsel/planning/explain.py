"""Why a plan is as it is, as data: alternatives and what they would cost, boundaries, declines, gains."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from layoutsel.planning.alternatives import best_with, single_plans
from layoutsel.planning.marginals import conditional_marginals, min_marginals
from layoutsel.planning.problem import Boundary, PlanningProblem
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
    """How much more the whole plan would cost, microseconds; None where that is beyond what was told apart."""

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

    @property
    def is_safe(self) -> bool:
        """Whether the best alternative loses by more than the measurement's spread."""
        return all(other.order_us > self.spread_us for other in self.alternatives)


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
    """Transforms and crossings that the plan pays for, the costliest first."""
    gains: Gains
    bound_us: float
    gap: float
    """Relative gap between plan and bound."""
    exact: bool
    """Whether the alternatives' costs allow the rest of the plan to change; else all else stays, an upper bound."""


def explain(
    problem: PlanningProblem,
    decisions: Mapping[SubgraphId, Decision],
    *,
    time_limit_s: float = 10.0,
) -> Explanation:
    """Explain `decisions`, which may come from any strategy, or be edited by hand."""
    cost = problem.cost(decisions)
    joint = solve(problem, time_limit_s=time_limit_s / 3)
    marginals, exact = _marginals(problem, decisions, joint.cost_us, time_limit_s / 3)
    subgraphs = []
    for node, costs in zip(problem.nodes, marginals, strict=True):
        chosen = node.option(decisions[node.id])
        others = [
            Counterfactual(
                decision=option.decision,
                cost_us=option.cost_us,
                spread_us=option.spread_us,
                source=option.source,
                extra_us=float(total) - cost.total_us if math.isfinite(total) else None,
            )
            for option, total in zip(node.options, costs, strict=True)
            if option is not chosen
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
        exact=exact,
    )


def _marginals(
    problem: PlanningProblem,
    decisions: Mapping[SubgraphId, Decision],
    best_us: float,
    time_limit_s: float,
) -> tuple[list, bool]:  # type: ignore[type-arg]
    tables = build_tables(problem)
    marginals = min_marginals(tables, best_us, time_limit_s=time_limit_s)
    if marginals is not None:
        return marginals, True
    choice = tuple(to_choice(problem, decisions))
    return conditional_marginals(tables, choice, tables.total(choice)), False


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
