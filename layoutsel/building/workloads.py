"""Descriptions of sub-graphs and tensors that a cost model is asked with."""

from __future__ import annotations

from layoutsel.cost.model import TensorSpec, Workload
from layoutsel.cost.workload import Hints
from layoutsel.model.graph import Subgraph
from layoutsel.planning.problem import Tensor


def workload(subgraph: Subgraph, hints: Hints | None = None) -> Workload:
    """Describe `subgraph` to a cost model, under the key that its measurements are kept."""
    return subgraph.shapes.workload(key=subgraph.structural_hash, hints=hints)


def tensor_spec(tensor: Tensor) -> TensorSpec:
    """Describe `tensor` to a cost model."""
    return TensorSpec(shape=tensor.shape, dtype=tensor.dtype, bytes=tensor.bytes)
