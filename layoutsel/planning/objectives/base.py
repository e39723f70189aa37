"""Objectives: quantities to choose plans by, with their solvers, bounds and comparisons."""

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
"""Decision of each sub-graph."""


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
    """Plans of the trade-off between time and error, the fastest first; empty without one."""

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
        """Make the answer of a solver that proved a bound on the problem's objective alone.

        Parameters
        ----------
        problem
            Problem that was solved.
        decisions
            Decision of each sub-graph.
        bound
            Proven bound, in the objective's unit.
        solver
            Name of the solver.
        time_s
            Time that solving took, seconds.
        """
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
"""Function of (problem, strategy, time limit in seconds) that returns an answer.

The strategy is an entry of :data:`~layoutsel.planning.strategies.STRATEGIES`, for solvers that use
one.
"""


Measured = Callable[[PlanningProblem, Decisions, float], float]
"""Function of (problem, decisions, median time of runs in µs) that returns the measured value."""


def time_of_runs(problem: PlanningProblem, decisions: Decisions, time_us: float) -> float:
    """Return the time of whole runs, for objectives whose value is a time."""
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
    """Name of the entry, as in problems and plan files."""
    unit: str
    """Unit of its values, such as ``us``."""
    about: str
    """Short description of the value for the user."""
    assess: Callable[[PlanningProblem, Decisions], Assessed]
    """Function of (problem, decisions) that returns the value of that plan."""
    solvers: Mapping[str, Solver]
    """Solvers that apply, by name; the first is the default."""
    bound: Callable[[PlanningProblem, float], float]
    """Function of (problem, time limit in seconds) that returns a bound on legal plans' values."""
    time_limit_s: float = 10.0
    """Default time limit of a solver, seconds."""
    maximised: bool = False
    """True if larger values are better, such as those of a throughput."""
    limits: tuple[str, ...] = ()
    """Names of the problem's limits that the solvers need and keep."""
    excess: Callable[[PlanningProblem, Decisions], float] = _no_excess
    """Function of (problem, decisions) that returns the excess over the limits; 0 without one."""
    unlimited: str = ""
    """Name of the objective with the same values and no limits; empty if this one has no limits."""
    comparable: Callable[[PlanningProblem, Decisions], PlanningProblem] = _itself
    """Function of (problem, decisions) that returns the problem for comparisons with that plan.

    Its plans keep the limits as well as that plan does.
    """
    measured: Measured | None = None
    """Function that returns the measured value of a plan; None if runs do not show it.

    The predicted value then decides between contenders, and the time of runs between equal ones.
    """
    attempts: Callable[[PlanningProblem, str], tuple[Weighed, ...]] | None = None
    """Function of (problem, strategy) that lists plans to build until one keeps measured limits.

    The best comes first. None if no limit concerns a measured quantity.
    """
    others: Callable[[PlanningProblem, Decisions, float], OtherPlans] | None = None
    """Function of (problem, decisions, time limit in s) that finds plans with other candidates.

    If it is None, these are the given plan with one decision changed.
    """
    overlaps: bool = False
    """True if work on devices may overlap, so that a second identical device is useful."""
    is_additive: bool = False
    """True if a decrease of a cost always decreases the value by the same amount."""

    def rank(self, problem: PlanningProblem, decisions: Decisions) -> tuple[float, float]:
        """Return the sort key of a plan, smallest for the best: excess over limits, then value."""
        value = self.assess(problem, decisions).value
        return self.excess(problem, decisions), -value if self.maximised else value

    def measured_rank(
        self, problem: PlanningProblem, decisions: Decisions, time_us: float
    ) -> tuple[float, float]:
        """Return the sort key of a plan whose whole runs took `time_us`, smallest for the best.

        It consists of the value and the time.
        """
        if self.measured is not None:
            value = self.measured(problem, decisions, time_us)
        else:
            value = self.assess(problem, decisions).value
        return -value if self.maximised else value, time_us

    @property
    def is_run_time(self) -> bool:
        """True if the value is the time of a whole run."""
        return self.measured is time_of_runs

    def loss(self, problem: PlanningProblem, decisions: Decisions) -> Loss:
        """Make the function that returns the loss of another plan against `decisions`."""
        sign = -1.0 if self.maximised else 1.0
        value = self.assess(problem, decisions).value
        return lambda other: sign * (self.assess(problem, other).value - value)

    def other_plans(
        self, problem: PlanningProblem, decisions: Decisions, time_limit_s: float
    ) -> OtherPlans:
        """Find, for each candidate that `decisions` do not use, a plan that uses it."""
        if self.others is not None:
            return self.others(problem, decisions, time_limit_s)
        return changed(problem, decisions, self.loss(problem, decisions), time_limit_s)

    def certified(self, value: float, bound: float) -> Value:
        """Join a value with its bound, which becomes the value if only rounding contradicts it."""
        is_beyond = bound < value if self.maximised else bound > value
        if is_beyond and abs(bound - value) <= _ROUNDING * abs(value):
            bound = value
        return Value(unit=self.unit, value=value, bound=bound)

    def solver(self, name: str | None = None) -> Solver:
        """Find the solver called `name`; None for the default one.

        Raises
        ------
        ProblemError
            If no solver has that name.
        """
        if name is None:
            return next(iter(self.solvers.values()))
        if name not in self.solvers:
            raise ProblemError(
                f"objective {self.name!r} has no solver {name!r}; "
                f"expected one of {', '.join(self.solvers)}"
            )
        return self.solvers[name]

    def check(self, problem: PlanningProblem) -> None:
        """Reject a problem with other limits than those of the solvers.

        Raises
        ------
        ProblemError
            If a limit is missing or unknown; the message names all limits.
        """
        if set(problem.limits) != set(self.limits):
            raise ProblemError(
                f"objective {self.name!r}: got a problem with the limits {sorted(problem.limits)}; "
                f"expected {sorted(self.limits)}"
            )
