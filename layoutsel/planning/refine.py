"""Prices of sub-graphs from times within whole plans, which include cache effects of neighbours."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from layoutsel.planning.problem import Option, PlanningProblem, PricedSubgraph
from layoutsel.planning.residuals import SubgraphResidual
from tvm_passes.decision import Decision, SubgraphId

IN_PLAN = "in a plan"
"""Source of a cost from a run of a whole plan."""

_Kind = tuple[str, str]
"""Unit and precision."""


@dataclass
class TimedSubgraphs:
    """Times of sub-graphs within runs of built plans."""

    problem: PlanningProblem
    """Problem with predicted prices."""
    keys: Mapping[SubgraphId, str]
    """Structural hash of each sub-graph; times hold for all sub-graphs with the same hash."""
    _own: dict[tuple[SubgraphId, Decision], float] = field(default_factory=dict)
    """Observed time of each sub-graph and decision, microseconds."""
    _alike: dict[tuple[str, Decision], float] = field(default_factory=dict)
    """Observed time by structural hash and decision, microseconds."""

    def add(self, residuals: Iterable[SubgraphResidual]) -> None:
        """Add the times of a plan, in place of earlier ones of the same decisions."""
        for one in residuals:
            if one.in_plan_us is None:
                continue
            self._own[one.id, one.decision] = one.in_plan_us
            if one.in_plan_us > 0:
                # A sub-graph without a step here, such as a concatenation in place, may need one
                # elsewhere.
                self._alike[self.keys[one.id], one.decision] = one.in_plan_us

    def priced(self) -> PlanningProblem:
        """Copy the problem with every candidate at its price within a plan.

        The price of a candidate without an observation is its prediction, scaled by the ratio of
        observed to predicted times of its unit and precision.
        """
        factors = self._factors()
        nodes = tuple(
            replace(node, options=tuple(self._option(node, o, factors) for o in node.options))
            for node in self.problem.nodes
        )
        return replace(self.problem, nodes=nodes)

    def _option(
        self, node: PricedSubgraph, option: Option, factors: Mapping[_Kind, float]
    ) -> Option:
        us = self._own.get((node.id, option.decision))
        if us is None:
            us = self._alike.get((self.keys[node.id], option.decision))
        if us is None:
            return replace(option, cost_us=option.cost_us * factors.get(_kind(option), 1.0))
        return replace(option, cost_us=us, spread_us=0.0, source=IN_PLAN)

    def _factors(self) -> Mapping[_Kind, float]:
        predicted_us: defaultdict[_Kind, float] = defaultdict(float)
        taken_us: defaultdict[_Kind, float] = defaultdict(float)
        for node in self.problem.nodes:
            for option in node.options:
                us = self._own.get((node.id, option.decision))
                if us:
                    predicted_us[_kind(option)] += option.cost_us
                    taken_us[_kind(option)] += us
        return {kind: taken_us[kind] / us for kind, us in predicted_us.items() if us > 0}


def _kind(option: Option) -> _Kind:
    return option.decision.unit, option.decision.precision
