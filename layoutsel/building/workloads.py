"""Descriptions of sub-graphs and tensors that a cost model is asked with."""

from __future__ import annotations

from layoutsel.core.workload import BoundaryTensor, Workload
from layoutsel.cost.graph import Subgraph
from layoutsel.cost.tensor import Tensor
from layoutsel.cost.workload import Hints


def workload(subgraph: Subgraph, hints: Hints | None = None) -> Workload:
    """Describe `subgraph` to a cost model, under the key that its measurements are kept."""
    return subgraph.shapes.workload(key=subgraph.structural_hash, hints=hints)


def tensor_spec(tensor: Tensor) -> BoundaryTensor:
    """Describe `tensor` to a cost model."""
    return BoundaryTensor(shape=tensor.shape, dtype=tensor.dtype, bytes=tensor.bytes)
