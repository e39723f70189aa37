"""Objective: a quantity that plans are chosen by, with its solvers, its bound and its comparison."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from layoutsel.planning.problem import PlanningProblem, ProblemError
from layoutsel.planning.solve import Solution, solve
from layoutsel.planning.trade_off import TradeOff
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


def _no_excess(problem: PlanningProblem, decisions: Decisions) -> float:
    del problem, decisions
    return 0.0


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

    def rank(self, problem: PlanningProblem, decisions: Decisions) -> tuple[float, float]:
        """Sort key of a plan, the least for the best: the excess over limits, then the value."""
        value = self.assess(problem, decisions).value
        return self.excess(problem, decisions), -value if self.maximised else value

    def is_better(self, problem: PlanningProblem, one: Decisions, other: Decisions) -> bool:
        """Compare two plans: True if `one` is better than `other`."""
        return self.rank(problem, one) < self.rank(problem, other)

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
