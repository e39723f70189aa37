"""The one question that every chooser asks: what does a sub-graph cost under a decision."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from tvm_passes.decision import Decision

INTERRUPTED = "interrupted"
"""Source of an estimate whose candidate could not be measured for a reason that may not be its own, such as a time-out."""


@dataclass(frozen=True, kw_only=True)
class Cost:
    """A time with its uncertainty."""

    us: float
    """Microseconds."""
    spread_us: float
    """Half the distance between the quartiles, or an estimate of the error, microseconds."""
    source: str
    """``measured``, ``interpolated``, ``learned``, ``tuned``, ``roofline`` or :data:`INTERRUPTED`."""


@dataclass(frozen=True, kw_only=True)
class Infeasible:
    """A candidate that turned out not to work; becomes a decline."""

    reason: str


@dataclass(frozen=True, kw_only=True)
class Workload:
    """What a cost model knows of a sub-graph."""

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
    """What units say of the code they would generate, by decision; see :attr:`tvm_passes.backends.Backend.hints`."""


@dataclass(frozen=True, kw_only=True)
class TensorSpec:
    """A tensor that crosses a boundary."""

    shape: tuple[int, ...]
    """Logical NCHW shape."""
    dtype: str
    bytes: int


class CostModel(Protocol):
    """Answers the time of (sub-graph, decision) and of a boundary, with an uncertainty."""

    def subgraph(self, workload: Workload, decision: Decision) -> Cost | Infeasible:
        """Time of one run of the sub-graph, boundaries excluded."""
        ...

    def transform(self, tensor: TensorSpec, source: str, destination: str) -> Cost:
        """Time of bringing `tensor` from layout `source` into layout `destination`."""
        ...

    def crossing(self, tensor: TensorSpec, source: str, destination: str) -> Cost:
        """Time of handing `tensor` from unit `source` to unit `destination`: between memories, of copying it."""
        ...
