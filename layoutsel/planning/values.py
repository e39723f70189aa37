"""Value of an objective for a plan, with its certificate."""

from __future__ import annotations

from dataclasses import dataclass

SUM = "sum"
"""Objective: time of all sub-graphs and boundaries, one after the other. Every plan states it."""
MAKESPAN = "makespan"
"""Objective: time until all results are there, while devices and the host work at the same time."""
WITHIN_ERROR = "within-error"
"""Objective: the same time as :data:`SUM`, among plans whose predicted error is within a limit."""

_SAME = 1e-6
"""Difference between value and bound that counts as none, in the objective's unit."""


@dataclass(frozen=True, kw_only=True)
class Value:
    """Value of one objective for one plan, and the best value that any plan can have."""

    unit: str
    """Unit of `value` and `bound`, such as ``us``."""
    value: float
    """Predicted value of the plan."""
    bound: float
    """Proven bound: no plan of the problem that keeps its limits has a better value."""

    @property
    def gap(self) -> float:
        """Relative gap between value and bound; 0 if the plan is proven best."""
        difference = abs(self.value - self.bound)
        return 0.0 if difference <= _SAME else difference / abs(self.value)
