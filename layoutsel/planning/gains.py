"""Gains of choosing jointly: predicted times of plans that are chosen in simpler ways."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from layoutsel.planning.alternatives import has_decision, narrowed, single_plans
from layoutsel.planning.objectives import answer, objective_of, timed
from layoutsel.planning.problem import PlanningProblem
from tvm_passes.decision import Decision, SubgraphId


@dataclass(frozen=True, kw_only=True)
class Gains:
    """Predicted times of runs by simpler ways to choose; their differences are what each freedom brings.

    They are values of the plan's objective, or sums of costs if that is no time. All keep the limits
    as well as the plan does.
    """

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
class _Chooser:
    """Chooses plans in simpler ways, and tells how long their runs take."""

    problem: PlanningProblem
    time_limit_s: float
    """Time limit of the joint plan, and of all others together, seconds."""

    @property
    def each_s(self) -> float:
        """Time limit of one of the others, seconds."""
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
    """Choose plans in simpler ways, within `time_limit_s` together, and compare them with a plan."""
    compared = timed(objective_of(problem.objective).comparable(problem, decisions))
    chooser = _Chooser(problem=compared, time_limit_s=time_limit_s / 2)
    plan_us = chooser.us(decisions)
    unit, layout, single = chooser.best_unit(), chooser.best_layout(), chooser.best_single()
    return Gains(
        plan_us=plan_us,
        # A search that is no exact one may miss the plan itself.
        joint_us=min(plan_us, chooser.joint()),
        score_us=chooser.best(compared, "score"),
        layouts_alone_us=unit[0],
        layouts_alone_unit=unit[1],
        units_alone_us=layout[0],
        units_alone_layout=layout[1],
        single_us=single[0],
        single_name=single[1],
    )
