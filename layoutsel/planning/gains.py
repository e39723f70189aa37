"""Gains of choosing jointly: predicted times of plans from simpler ways of choosing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from layoutsel.planning.alternatives import has_decision, narrowed, single_plans
from layoutsel.planning.objectives import answer, objective_of, timed
from layoutsel.planning.problem import PlanningProblem
from tvm_passes.decision import Decision, SubgraphId


@dataclass(frozen=True, kw_only=True)
class Gains:
    """Predicted times of plans whose units or layouts are chosen in simpler ways.

    Their differences show the gain of choosing both freely. They are values of the plan's
    objective, or sums of costs if that is not a time. All keep the limits as well as the plan does.
    """

    plan_us: float
    """Time of the explained plan, microseconds."""
    joint_us: float
    """Time if unit and layout are chosen jointly, microseconds."""
    score_us: float
    """Time if the unit is chosen by complexity score, then the layout, microseconds."""
    layouts_alone_us: float
    """Time of the best single unit with free layouts, microseconds.

    Sub-graphs that it cannot run use the best other unit.
    """
    layouts_alone_unit: str
    """Name of the best single unit."""
    units_alone_us: float
    """Time of the best single layout with free units, microseconds.

    Sub-graphs without it use the best other layout.
    """
    units_alone_layout: str
    """Name of the best single layout."""
    single_us: float
    """Time of the best single decision for all sub-graphs, microseconds."""
    single_name: str
    """Name of the best single decision."""


@dataclass(frozen=True, kw_only=True)
class _Chooser:
    """Choice of plans in simpler ways, with the predicted times of their runs."""

    problem: PlanningProblem
    """Problem of the plans."""
    time_limit_s: float
    """Time limit of the joint plan, and of all others together, seconds."""

    @property
    def each_s(self) -> float:
        """Time limit of each other plan, seconds."""
        return self.time_limit_s / (1 + len(self.problem.units) + len(self.problem.layouts))

    def us(self, decisions: Mapping[SubgraphId, Decision]) -> float:
        """Predicted time of a run, microseconds."""
        return objective_of(self.problem.objective).assess(self.problem, decisions).value

    def joint(self) -> float:
        """Predicted time of a run of the best plan."""
        return self.us(answer(self.problem, time_limit_s=self.time_limit_s).solution.decisions)

    def best(self, problem: PlanningProblem, strategy: str = "joint") -> float:
        """Predicted time of a run of the best plan of a narrowed problem, or by a strategy."""
        found = answer(problem, strategy=strategy, time_limit_s=self.each_s)
        return self.us(found.solution.decisions)

    def best_unit(self) -> tuple[float, str]:
        """Find the best single unit."""
        times = [
            (self.best(narrowed(self.problem, has_decision(unit=unit))), unit)
            for unit in self.problem.units
        ]
        return min(times, default=(0.0, ""))

    def best_layout(self) -> tuple[float, str]:
        """Find the best single layout."""
        times = [
            (self.best(narrowed(self.problem, has_decision(layout=layout))), layout)
            for layout in self.problem.layouts
        ]
        return min(times, default=(0.0, ""))

    def best_single(self) -> tuple[float, str]:
        """Find the best single decision."""
        times = [(self.us(plan.decisions), plan.name) for plan in single_plans(self.problem)]
        return min(times, default=(0.0, ""))


def gains_of(
    problem: PlanningProblem, decisions: Mapping[SubgraphId, Decision], time_limit_s: float
) -> Gains:
    """Choose plans in simpler ways within a total time limit, and compare them with a plan."""
    compared = timed(objective_of(problem.objective).comparable(problem, decisions))
    chooser = _Chooser(problem=compared, time_limit_s=time_limit_s / 2)
    plan_us = chooser.us(decisions)
    unit, layout, single = chooser.best_unit(), chooser.best_layout(), chooser.best_single()
    score_us = chooser.best(compared, "score")
    return Gains(
        plan_us=plan_us,
        # An inexact search may miss the plan itself, and those of simpler ways.
        joint_us=min(plan_us, chooser.joint(), score_us, unit[0], layout[0], single[0]),
        score_us=score_us,
        layouts_alone_us=unit[0],
        layouts_alone_unit=unit[1],
        units_alone_us=layout[0],
        units_alone_layout=layout[1],
        single_us=single[0],
        single_name=single[1],
    )
