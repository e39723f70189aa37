"""Inputs and results of cost models: workloads, tensors at boundaries, cost vectors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from math import expm1

from layoutsel.core.precision import relative_bytes
from tvm_passes.decision import Decision

INTERRUPTED = "interrupted"
"""Source of an estimate whose measurement failed for outside reasons, such as a time-out."""
FROM_WORKLOAD = "workload"
"""Source of quantities that follow from shapes and element types alone."""

REPACKED = "repacked_bytes"
"""Name of a unit's hint: bytes of weights that it repacks in each run."""


@dataclass(frozen=True)
class Estimate:
    """One number with its uncertainty and its origin."""

    value: float
    """The number, in the unit that the name of the field states."""
    spread: float = 0.0
    """Half the interquartile range, or an estimate of the error, in the same unit."""
    source: str = FROM_WORKLOAD
    """Origin of the number: ``measured``, ``interpolated``, ``learned``, ``tuned``, ``roofline``,
    ``workload`` or :data:`INTERRUPTED`."""

    def __add__(self, other: Estimate) -> Estimate:
        """Sum of both; the source is that of the less certain one."""
        source = self.source if self.spread >= other.spread else other.source
        return Estimate(self.value + other.value, self.spread + other.spread, source)


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Costs of one run; an unknown component is None."""

    time_us: Estimate
    """Run time, microseconds."""
    energy_mj: Estimate | None = None
    """Energy, millijoules."""
    bytes_moved: Estimate | None = None
    """Bytes read and written; each tensor counts once."""
    memory_bytes: Estimate | None = None
    """Bytes of all tensors that must be in memory at the same time."""

    @classmethod
    def timed(cls, us: float, spread_us: float, source: str) -> Cost:
        """Make a cost with a known time only."""
        return cls(time_us=Estimate(us, spread_us, source))

    @property
    def us(self) -> float:
        """Time, microseconds."""
        return self.time_us.value

    @property
    def spread_us(self) -> float:
        """Spread of the time, microseconds."""
        return self.time_us.spread

    @property
    def source(self) -> str:
        """Origin of the time."""
        return self.time_us.source

    def with_source(self, source: str) -> Cost:
        """Copy the cost with another origin of its time."""
        return replace(self, time_us=replace(self.time_us, source=source))

    def widened(self, half_width: float) -> Cost:
        """Copy the cost and widen the spread of its time by the factor exp(`half_width`)."""
        if not half_width:
            return self
        time = self.time_us
        spread = time.spread + (time.value + time.spread) * expm1(half_width)
        return replace(self, time_us=replace(time, spread=spread))

    def __add__(self, other: Cost) -> Cost:
        """Cost of two runs, one after the other."""
        return Cost(
            time_us=self.time_us + other.time_us,
            energy_mj=_sum(self.energy_mj, other.energy_mj),
            bytes_moved=_sum(self.bytes_moved, other.bytes_moved),
            memory_bytes=_largest(self.memory_bytes, other.memory_bytes),
        )


def _sum(one: Estimate | None, other: Estimate | None) -> Estimate | None:
    return None if one is None or other is None else one + other


def _largest(one: Estimate | None, other: Estimate | None) -> Estimate | None:
    if one is None or other is None:
        return None
    return max(one, other, key=lambda estimate: estimate.value)


@dataclass(frozen=True, kw_only=True)
class Infeasible:
    """A candidate that failed when it was priced; it becomes a decline."""

    reason: str
    """Reason of the failure, for the decline."""


@dataclass(frozen=True, kw_only=True)
class Workload:
    """Features of a sub-graph for a cost model.

    Built by :mod:`layoutsel.cost.workload` from shapes alone.
    """

    key: str
    """Structural hash; equal sub-graphs of one or several networks share it."""
    operator: str
    """Anchor operator, such as ``nn.conv2d``."""
    flops: float
    """Number of floating-point operations; a multiply-add counts as two."""
    weight_bytes: float
    """Bytes of weights, read from memory once per run."""
    activation_bytes: float
    """Bytes of activations, read and written."""
    operators: tuple[str, ...] = ()
    """All operators, in order of execution."""
    inputs: tuple[tuple[int, ...], ...] = ()
    """Logical shapes of the activations."""
    weights: tuple[tuple[int, ...], ...] = ()
    """Shapes of the weights."""
    outputs: tuple[tuple[int, ...], ...] = ()
    """Logical shapes of the results."""
    attributes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    """Integer attributes of the anchor, such as ``strides``."""
    hints: Mapping[str, Mapping[str, float]] = field(default_factory=dict, compare=False)
    """Facts about the code that units would generate, by decision: see
    :attr:`tvm_passes.backends.Backend.hints`."""

    def hints_of(self, decision: Decision) -> Mapping[str, float]:
        """Facts about the code under `decision`; empty if its unit states none."""
        return self.hints.get(str(decision), {}) if self.hints else {}

    def cost(self, time_us: Estimate, decision: Decision) -> Cost:
        """Make the cost vector of a run under `decision` that takes `time_us`."""
        stored = relative_bytes(decision.precision) * (self.weight_bytes + self.activation_bytes)
        repacked = self.hints_of(decision).get(REPACKED, 0.0)
        return Cost(
            time_us=time_us,
            bytes_moved=Estimate(stored + 2 * repacked),
            memory_bytes=Estimate(stored + repacked),
        )


@dataclass(frozen=True, kw_only=True)
class BoundaryTensor:
    """A tensor that crosses a boundary."""

    shape: tuple[int, ...]
    """Logical NCHW shape."""
    dtype: str
    """Element type, as numpy spells it."""
    bytes: int
    """Size of the tensor, bytes."""

    def cost(self, time_us: Estimate) -> Cost:
        """Cost vector of a layout transform or copy in `time_us`: one read and one write."""
        twice = Estimate(2.0 * self.bytes if time_us.value else 0.0)
        return Cost(time_us=time_us, bytes_moved=twice, memory_bytes=twice)
