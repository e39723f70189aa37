"""Value of an objective for a plan, with its certificate."""

from __future__ import annotations

from dataclasses import dataclass

SUM = "sum"
"""Objective: time of all sub-graphs and boundaries, one after another; part of every plan."""
MAKESPAN = "makespan"
"""Objective: time until all results are available, while devices and host work concurrently."""
WITHIN_ERROR = "within-error"
"""Objective: the time of :data:`SUM` among plans with a limited predicted error."""

_SAME = 1e-6
"""Maximum difference of equal values and bounds, in the objective's unit."""


@dataclass(frozen=True, kw_only=True)
class Value:
    """Value of one objective for one plan, with a bound on the values of all plans."""

    unit: str
    """Unit of `value` and `bound`, such as ``us``."""
    value: float
    """Predicted value of the plan."""
    bound: float
    """Proven bound: no plan within the problem's limits has a better value."""

    @property
    def gap(self) -> float:
        """Relative gap between value and bound; 0 if the plan is proven best."""
        difference = abs(self.value - self.bound)
        return 0.0 if difference <= _SAME else difference / abs(self.value)
