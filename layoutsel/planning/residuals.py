"""Prediction errors of a plan, part by part."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from layoutsel.planning.value_of_information import MEASURED
from tvm_passes.decision import Decision, SubgraphId


@dataclass(frozen=True, kw_only=True)
class Ran:
    """Time of a sub-graph, or of the transforms between two layouts, within a run."""

    us: float
    """Median over all runs, microseconds."""
    spread_us: float
    """Half the interquartile range, microseconds."""
    count: int
    """Number of steps in one run."""


@dataclass(frozen=True, kw_only=True)
class TracedRuns:
    """Results of alternating runs with and without tracing."""

    runs: int
    """Number of runs of each kind."""
    whole_us: float
    """Median time without tracing, microseconds."""
    traced_us: float
    """Median time with tracing, microseconds."""
    subgraphs: Mapping[str, Ran]
    """Traced times of the observed sub-graphs, by id."""
    transforms: Mapping[str, Ran]
    """Traced times of transforms, by layouts such as ``NCHW>NHWC``."""
    merged: frozenset[str]
    """Sub-graphs that ran merged with another one in a partition."""

    @property
    def fit(self) -> float:
        """Factor on the traced times of steps.

        Tracing is called between the steps; the total time comes from runs without it. If the sum
        of the steps exceeds that time, tracing slowed the steps as well, and they are scaled down
        to fit.
        """
        steps_us = sum(ran.us for ran in (*self.subgraphs.values(), *self.transforms.values()))
        return min(1.0, self.whole_us / steps_us) if steps_us > 0 else 1.0


@dataclass(frozen=True, kw_only=True)
class SubgraphResidual:
    """Prediction of a sub-graph alone, and its time in the plan."""

    id: SubgraphId
    """Identifier of the sub-graph."""
    decision: Decision
    """Decision of the plan."""
    predicted_us: float
    """Predicted time, microseconds."""
    spread_us: float
    """Uncertainty of `predicted_us`, microseconds."""
    source: str
    """Origin of `predicted_us`."""
    in_plan_us: float | None
    """Time in the plan, microseconds; 0 without a step of its own, None if unknown."""
    in_plan_spread_us: float | None
    """Half the interquartile range of `in_plan_us`, microseconds."""
    merged: bool
    """True if the sub-graph was merged with a neighbour on the same unit."""

    @property
    def error_us(self) -> float:
        """Time in the plan minus prediction, microseconds; 0 if unknown."""
        return 0.0 if self.in_plan_us is None else self.in_plan_us - self.predicted_us

    @property
    def is_fusion(self) -> bool:
        """True if the prediction was measured alone, so that merging explains the error."""
        return self.merged and self.source == MEASURED


@dataclass(frozen=True, kw_only=True)
class TransformResidual:
    """All transforms of a run from one layout to another."""

    source: str
    """Layout before the transforms."""
    destination: str
    """Layout after the transforms."""
    predicted: int
    """Number of transforms in the plan."""
    ran: int
    """Number of transforms in a run."""
    predicted_us: float
    """Predicted time of all transforms, microseconds."""
    in_plan_us: float
    """Time of all transforms in a run, microseconds."""

    @property
    def name(self) -> str:
        """Name such as ``NCHW>NHWC``."""
        return f"{self.source}>{self.destination}"

    @property
    def error_us(self) -> float:
        """Time in the plan minus prediction, microseconds."""
        return self.in_plan_us - self.predicted_us


@dataclass(frozen=True, kw_only=True)
class Residuals:
    """Difference between a plan's measured and predicted time, by part."""

    predicted_us: float
    """Predicted time of the plan, microseconds."""
    measured_us: float
    """Measured time of the whole model without tracing, microseconds."""
    runs: int
    """Number of traced runs."""
    tracing_us: float
    """Time that tracing added to a run, microseconds; excluded from all other fields."""
    scale: float
    """Factor on the traced times, for slowdown by tracing and the speed of the machine."""
    crossings_us: float
    """Predicted time of hand-overs between units, copies included, microseconds."""
    subgraphs: tuple[SubgraphResidual, ...]
    """Errors of the sub-graphs."""
    transforms: tuple[TransformResidual, ...]
    """Errors of the transforms, by layouts."""

    @property
    def error_us(self) -> float:
        """Measured minus predicted time, microseconds: the sum of :attr:`parts`."""
        return self.measured_us - self.predicted_us

    @cached_property
    def parts(self) -> Mapping[str, float]:
        """Contribution of each part to the error, microseconds.

        ``sub-graphs``: time in the plan minus the prediction alone. ``fusion``: the same for
        sub-graphs that were measured alone and run merged with a neighbour, so that merging is the
        difference. ``transforms``: layout transforms. ``hand-overs``: the time of a run outside all
        steps (calls, allocations, changes of unit), minus the predicted crossings.
        """
        steps = {
            "sub-graphs": sum(s.error_us for s in self.subgraphs if not s.is_fusion),
            "fusion": sum(s.error_us for s in self.subgraphs if s.is_fusion),
            "transforms": sum(transform.error_us for transform in self.transforms),
        }
        return {**steps, "hand-overs": self.error_us - sum(steps.values())}

    def worst(self, most: int) -> tuple[SubgraphResidual, ...]:
        """List the sub-graphs with the largest errors, the worst first."""
        seen = [subgraph for subgraph in self.subgraphs if subgraph.in_plan_us is not None]
        return tuple(sorted(seen, key=lambda subgraph: -abs(subgraph.error_us))[:most])
