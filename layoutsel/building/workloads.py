"""Descriptions of sub-graphs and tensors for cost models."""

from __future__ import annotations

from layoutsel.core.workload import BoundaryTensor, Workload
from layoutsel.cost.graph import Subgraph
from layoutsel.cost.tensor import Tensor
from layoutsel.cost.workload import Hints


def workload(subgraph: Subgraph, hints: Hints | None = None) -> Workload:
    """Describe `subgraph` to a cost model; its structural hash is the key of measurements.

    `hints` are facts about the code that units would generate, by decision.
    """
    return subgraph.shapes.workload(key=subgraph.structural_hash, hints=hints)


def tensor_spec(tensor: Tensor) -> BoundaryTensor:
    """Describe `tensor` to a cost model."""
    return BoundaryTensor(shape=tensor.shape, dtype=tensor.dtype, bytes=tensor.bytes)
