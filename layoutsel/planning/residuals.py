"""Predicted against measured, part by part: where a plan's prediction was off."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from layoutsel.planning.value_of_information import MEASURED
from tvm_passes.decision import Decision, SubgraphId


@dataclass(frozen=True, kw_only=True)
class Ran:
    """How long a sub-graph, or the transforms from one layout to another, took within a run."""

    us: float
    """Median over the runs, microseconds."""
    spread_us: float
    """Half the distance between the quartiles, microseconds."""
    count: int
    """Steps of one run that this is the sum of."""


@dataclass(frozen=True, kw_only=True)
class TracedRuns:
    """What runs with tracing, and runs without in turns with them, gave."""

    runs: int
    """Of each kind."""
    whole_us: float
    """Median time without tracing, microseconds."""
    traced_us: float
    """Median time with tracing, microseconds."""
    subgraphs: Mapping[str, Ran]
    """By id, those that were seen; traced."""
    transforms: Mapping[str, Ran]
    """By layouts, such as ``NCHW>NHWC``; traced."""
    merged: frozenset[str]
    """Sub-graphs that ran in one partition with another one."""

    @property
    def fit(self) -> float:
        """Factor on the traced steps' times.

        Tracing is called between the steps, so what it adds is left out by taking the whole from the runs without.
        Where the steps alone were longer than that, it slowed them as well: they are scaled down to fit.
        """
        steps_us = sum(ran.us for ran in (*self.subgraphs.values(), *self.transforms.values()))
        return min(1.0, self.whole_us / steps_us) if steps_us > 0 else 1.0


@dataclass(frozen=True, kw_only=True)
class SubgraphResidual:
    """One sub-graph: predicted alone, and as it ran in the plan."""

    id: SubgraphId
    decision: Decision
    predicted_us: float
    spread_us: float
    """Uncertainty of `predicted_us`, microseconds."""
    source: str
    """Where `predicted_us` comes from."""
    in_plan_us: float | None
    """Microseconds; 0 where it took no step of its own, as a concatenation in place; None if that is not known."""
    in_plan_spread_us: float | None
    """Half the distance between the quartiles of `in_plan_us`, microseconds."""
    merged: bool
    """True if it was merged into one partition with a neighbour on the same unit."""

    @property
    def error_us(self) -> float:
        """In the plan, less predicted; nothing where it was not told apart."""
        return 0.0 if self.in_plan_us is None else self.in_plan_us - self.predicted_us

    @property
    def is_fusion(self) -> bool:
        """True if merging, not the cost model, is what its error comes from: it was measured alone."""
        return self.merged and self.source == MEASURED


@dataclass(frozen=True, kw_only=True)
class TransformResidual:
    """All transforms of a run from one layout to another."""

    source: str
    destination: str
    predicted: int
    """How many the plan has."""
    ran: int
    """How many were run."""
    predicted_us: float
    in_plan_us: float

    @property
    def name(self) -> str:
        """Such as ``NCHW>NHWC``."""
        return f"{self.source}>{self.destination}"

    @property
    def error_us(self) -> float:
        """In the plan, less predicted."""
        return self.in_plan_us - self.predicted_us


@dataclass(frozen=True, kw_only=True)
class Residuals:
    """A plan's measured time less its predicted one, by where it comes from."""

    predicted_us: float
    """The plan."""
    measured_us: float
    """The whole model, without tracing."""
    runs: int
    """Runs that were traced."""
    tracing_us: float
    """What tracing added to a run, microseconds; left out of everything here."""
    scale: float
    """Factor on the traced times: steps that tracing slowed, and the machine's speed when `measured_us` was taken."""
    crossings_us: float
    """Predicted for hand-overs between units, copies included."""
    subgraphs: tuple[SubgraphResidual, ...]
    transforms: tuple[TransformResidual, ...]

    @property
    def error_us(self) -> float:
        """Measured less predicted: the sum of :attr:`parts`."""
        return self.measured_us - self.predicted_us

    @cached_property
    def parts(self) -> Mapping[str, float]:
        """What each part adds to the error, microseconds.

        ``sub-graphs``: in the plan, less predicted alone. ``fusion``: the same of those that were measured alone
        and run merged with a neighbour, so that merging is what changed. ``transforms``: of layouts. ``hand-overs``:
        the time of a run that is in no step (calls, allocations, changes of unit), less the predicted crossings.
        """
        steps = {
            "sub-graphs": sum(s.error_us for s in self.subgraphs if not s.is_fusion),
            "fusion": sum(s.error_us for s in self.subgraphs if s.is_fusion),
            "transforms": sum(transform.error_us for transform in self.transforms),
        }
        return {**steps, "hand-overs": self.error_us - sum(steps.values())}

    def worst(self, most: int) -> tuple[SubgraphResidual, ...]:
        """Sub-graphs whose prediction was off the most, the worst first."""
        seen = [subgraph for subgraph in self.subgraphs if subgraph.in_plan_us is not None]
        return tuple(sorted(seen, key=lambda subgraph: -abs(subgraph.error_us))[:most])
