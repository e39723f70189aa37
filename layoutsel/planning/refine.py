"""Prices of sub-graphs within runs, where predictions are of each alone: neighbours leave other things in the caches."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from layoutsel.planning.problem import Option, PlanningProblem, PricedSubgraph
from layoutsel.planning.residuals import SubgraphResidual
from tvm_passes.decision import Decision, SubgraphId

IN_PLAN = "in a plan"
"""Where a cost comes from that a run of a plan gave."""

_Kind = tuple[str, str]
"""Unit and precision."""


@dataclass
class TimedSubgraphs:
    """What sub-graphs took within runs of plans that were built."""

    problem: PlanningProblem
    keys: Mapping[SubgraphId, str]
    """Structural hash of each sub-graph: equal ones stand in for each other."""
    _own: dict[tuple[SubgraphId, Decision], float] = field(default_factory=dict)
    _alike: dict[tuple[str, Decision], float] = field(default_factory=dict)

    def add(self, residuals: Iterable[SubgraphResidual]) -> None:
        """Take in a plan; what was seen of the same decisions before is forgotten."""
        for one in residuals:
            if one.in_plan_us is None:
                continue
            self._own[one.id, one.decision] = one.in_plan_us
            if one.in_plan_us > 0:
                # What took no step of its own, as a concatenation in place, may take one elsewhere.
                self._alike[self.keys[one.id], one.decision] = one.in_plan_us

    def priced(self) -> PlanningProblem:
        """The problem with every candidate at its price within a plan.

        One that was not seen costs what is predicted, times what those of its unit and precision that were seen took
        more than predicted.
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
