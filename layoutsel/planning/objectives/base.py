"""Objective: a quantity that plans are chosen by, with its solvers, its bound and its comparison."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from layoutsel.planning.other_plans import Loss, OtherPlans, changed
from layoutsel.planning.problem import PlanningProblem, ProblemError
from layoutsel.planning.solve import Solution, solve
from layoutsel.planning.trade_off import TradeOff, Weighed
from layoutsel.planning.values import Value
from tvm_passes.decision import Decision, SubgraphId

_ROUNDING = 1e-9
"""Relative difference of equal sums that were added in different orders."""

Decisions = Mapping[SubgraphId, Decision]


@dataclass(frozen=True, kw_only=True)
class Assessed:
    """Value of an objective for one choice of decisions."""

    value: float
    """Predicted value, in the objective's unit."""
    order: tuple[SubgraphId, ...] = ()
    """Order of calls that the value holds for; empty if the value does not depend on it."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """Result of a solver."""

    solution: Solution
    """Decisions, priced by the sum of costs, with the bounds that the solver proved."""
    trade_off: tuple[TradeOff, ...] = ()
    """Plans that time was weighed against error with, the fastest first; empty if there was nothing to weigh."""

    @classmethod
    def of(
        cls,
        problem: PlanningProblem,
        decisions: Decisions,
        *,
        bound: float,
        solver: str,
        time_s: float,
    ) -> Answer:
        """Make the answer of a solver that proved a `bound` on the problem's objective alone."""
        solution = Solution(
            decisions=decisions,
            cost_us=problem.cost(decisions).total_us,
            bound_us=solve(problem).bound_us,
            solver=solver,
            time_s=time_s,
            bounds={problem.objective: bound},
        )
        return cls(solution=solution)


Solver = Callable[[PlanningProblem, str, float], Answer]
"""(problem, strategy, time limit in seconds) → answer.

The strategy is an entry of :data:`~layoutsel.planning.strategies.STRATEGIES`, for solvers that take one.
"""


Measured = Callable[[PlanningProblem, Decisions, float], float]
"""(problem, decisions, median time of whole runs in microseconds) → measured value."""


def time_of_runs(problem: PlanningProblem, decisions: Decisions, time_us: float) -> float:
    """Take the time of whole runs, in which devices work as the plan lets them."""
    del problem, decisions
    return time_us


def _no_excess(problem: PlanningProblem, decisions: Decisions) -> float:
    del problem, decisions
    return 0.0


def _itself(problem: PlanningProblem, decisions: Decisions) -> PlanningProblem:
    del decisions
    return problem


@dataclass(frozen=True, kw_only=True)
class Objective:
    """One entry of the table of objectives."""

    name: str
    """Name of the entry, as problems and plan files have it."""
    unit: str
    """Unit of its values, such as ``us``."""
    about: str
    """A few words for people that say which value it is."""
    assess: Callable[[PlanningProblem, Decisions], Assessed]
    """(problem, decisions) → value of that plan."""
    solvers: Mapping[str, Solver]
    """Solvers that apply, by name; the first is the default."""
    bound: Callable[[PlanningProblem, float], float]
    """(problem, time limit in seconds) → bound: no plan that keeps the problem's limits has a better value."""
    time_limit_s: float = 10.0
    """Seconds that a solver takes where nothing else is said."""
    maximised: bool = False
    """True if larger values are better, such as those of a throughput."""
    limits: tuple[str, ...] = ()
    """Names of the limits of a problem that its solvers keep, and need."""
    excess: Callable[[PlanningProblem, Decisions], float] = _no_excess
    """(problem, decisions) → by how much that plan exceeds the limits; 0 if it keeps them."""
    unlimited: str = ""
    """Name of the objective with the same values and no limits; empty for one that has none."""
    comparable: Callable[[PlanningProblem, Decisions], PlanningProblem] = _itself
    """(problem, decisions) → problem whose plans all keep the limits as well as that plan does."""
    measured: Measured | None = None
    """Value of a plan that was run, which contenders are compared by; None if runs do not tell it.

    The predicted value decides then, and the time of runs only between equal ones.
    """
    attempts: Callable[[PlanningProblem, str], tuple[Weighed, ...]] | None = None
    """(problem, strategy) → plans to build in turn until one keeps the limits as measured.

    The best comes first.
    None if no limit is one of a measured quantity.
    """
    others: Callable[[PlanningProblem, Decisions, float], OtherPlans] | None = None
    """(problem, decisions, time limit in seconds) → plans that take other candidates.

    None for the plan with single decisions changed.
    """
    overlaps: bool = False
    """True if work on different devices may overlap, so that a second device like another one is of use."""
    is_additive: bool = False
    """True if a cost that is lower by some amount always lowers the value by that amount."""

    def rank(self, problem: PlanningProblem, decisions: Decisions) -> tuple[float, float]:
        """Sort key of a plan, the least for the best: the excess over limits, then the value."""
        value = self.assess(problem, decisions).value
        return self.excess(problem, decisions), -value if self.maximised else value

    def measured_rank(
        self, problem: PlanningProblem, decisions: Decisions, time_us: float
    ) -> tuple[float, float]:
        """Sort key of a plan whose whole runs took `time_us`: the value, then the time.

        The least key is the best.
        """
        if self.measured is not None:
            value = self.measured(problem, decisions, time_us)
        else:
            value = self.assess(problem, decisions).value
        return -value if self.maximised else value, time_us

    @property
    def is_run_time(self) -> bool:
        """True if its value is the time of a whole run."""
        return self.measured is time_of_runs

    def loss(self, problem: PlanningProblem, decisions: Decisions) -> Loss:
        """Make the function that tells how much worse than `decisions` a plan's value is."""
        sign = -1.0 if self.maximised else 1.0
        value = self.assess(problem, decisions).value
        return lambda other: sign * (self.assess(problem, other).value - value)

    def other_plans(
        self, problem: PlanningProblem, decisions: Decisions, time_limit_s: float
    ) -> OtherPlans:
        """Find, for every candidate that `decisions` do not take, a plan that does."""
        if self.others is not None:
            return self.others(problem, decisions, time_limit_s)
        return changed(problem, decisions, self.loss(problem, decisions), time_limit_s)

    def certified(self, value: float, bound: float) -> Value:
        """Join a value with its bound; a bound that contradicts the value by rounding alone becomes the value."""
        is_beyond = bound < value if self.maximised else bound > value
        if is_beyond and abs(bound - value) <= _ROUNDING * abs(value):
            bound = value
        return Value(unit=self.unit, value=value, bound=bound)

    def solver(self, name: str | None = None) -> Solver:
        """Find the solver called `name`; the default one if it is None.

        Raises
        ------
        ProblemError
            If none of its solvers has that name.
        """
        if name is None:
            return next(iter(self.solvers.values()))
        if name not in self.solvers:
            raise ProblemError(
                f"objective {self.name!r} has no solver {name!r}; expected one of {', '.join(self.solvers)}"
            )
        return self.solvers[name]

    def check(self, problem: PlanningProblem) -> None:
        """Reject a problem whose limits are not those that the solvers keep.

        Raises
        ------
        ProblemError
            Names the limits that are missing or not kept.
        """
        if set(problem.limits) != set(self.limits):
            raise ProblemError(
                f"objective {self.name!r}: got a problem with the limits {sorted(problem.limits)}; expected "
                f"{sorted(self.limits)}"
            )
