"""Questions and answers about costs as values: workloads, tensors at boundaries, cost vectors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from math import expm1
from types import MappingProxyType

from tvm_passes.decision import Decision

INTERRUPTED = "interrupted"
"""Source of an estimate whose candidate could not be measured for a reason that may not be its own, such as a time-out."""
FROM_WORKLOAD = "workload"
"""Source of quantities that follow from shapes and types alone."""

STORED: Mapping[str, float] = MappingProxyType({"bf16": 0.5})
"""Bytes of a tensor relative to f32, by precision; 1 where absent."""

REPACKED = "repacked_bytes"
"""Hint of a unit: bytes of weights that it brings into another form in each run."""


@dataclass(frozen=True)
class Estimate:
    """One number with its uncertainty and its origin."""

    value: float
    """In the unit that the name of the field says."""
    spread: float = 0.0
    """Half the distance between the quartiles, or an estimate of the error, in the same unit."""
    source: str = FROM_WORKLOAD
    """``measured``, ``interpolated``, ``learned``, ``tuned``, ``roofline``, ``workload`` or :data:`INTERRUPTED`."""

    def __add__(self, other: Estimate) -> Estimate:
        source = self.source if self.spread >= other.spread else other.source
        return Estimate(self.value + other.value, self.spread + other.spread, source)


@dataclass(frozen=True, kw_only=True)
class Cost:
    """A vector of costs of one run; an unknown component is None."""

    time_us: Estimate
    """Time, microseconds."""
    energy_mj: Estimate | None = None
    """Energy, millijoules."""
    bytes_moved: Estimate | None = None
    """Bytes read and written, each tensor once."""
    memory_bytes: Estimate | None = None
    """Bytes of all tensors that have to be in memory at the same time."""

    @classmethod
    def timed(cls, us: float, spread_us: float, source: str) -> Cost:
        """Make a cost of which only the time is known."""
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
        """Copy the cost with a time that is less certain by `half_width`, a logarithm."""
        if not half_width:
            return self
        time = self.time_us
        spread = time.spread + (time.value + time.spread) * expm1(half_width)
        return replace(self, time_us=replace(time, spread=spread))

    def __add__(self, other: Cost) -> Cost:
        """Cost of both, one after the other."""
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
    """A candidate that turned out not to work; becomes a decline."""

    reason: str


@dataclass(frozen=True, kw_only=True)
class Workload:
    """Everything that a cost model knows of a sub-graph; built by :mod:`layoutsel.cost.workload` from shapes alone."""

    key: str
    """Structural hash: equal sub-graphs, at different places of a network, share it."""
    operator: str
    """Anchor operator, such as ``nn.conv2d``."""
    flops: float
    """Floating-point operations; a multiply-add counts two."""
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
    """Facts about the code that units would generate, by decision; see :attr:`tvm_passes.backends.Backend.hints`."""

    def hints_of(self, decision: Decision) -> Mapping[str, float]:
        """Facts about the code under `decision`; none where its unit states none."""
        return self.hints.get(str(decision), {}) if self.hints else {}

    def cost(self, time_us: Estimate, decision: Decision) -> Cost:
        """Make the cost vector of a run under `decision` that takes `time_us`."""
        stored = STORED.get(decision.precision, 1.0) * (self.weight_bytes + self.activation_bytes)
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
    bytes: int

    def cost(self, time_us: Estimate) -> Cost:
        """Make the cost vector of rewriting or copying the tensor in `time_us`: read once, written once."""
        twice = Estimate(2.0 * self.bytes if time_us.value else 0.0)
        return Cost(time_us=time_us, bytes_moved=twice, memory_bytes=twice)
