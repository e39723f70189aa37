"""The one question that every chooser asks: what does a sub-graph cost under a decision."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from tvm_passes.decision import Decision


@dataclass(frozen=True, kw_only=True)
class Cost:
    """A time with its uncertainty."""

    us: float
    """Microseconds."""
    spread_us: float
    """Half the distance between the quartiles, or an estimate of the error, microseconds."""
    source: str
    """``measured``, ``interpolated`` or ``roofline``."""


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
        """Time of handing `tensor` from unit `source` to unit `destination`."""
        ...
