"""What a cost model is told of a sub-graph, and of a tensor."""

from __future__ import annotations

from collections.abc import Mapping

from layoutsel.cost.model import TensorSpec, Workload
from layoutsel.model.graph import Subgraph
from layoutsel.planning.problem import Tensor


def workload(
    subgraph: Subgraph, hints: Mapping[str, Mapping[str, float]] | None = None
) -> Workload:
    """What a cost model is told of `subgraph`."""
    return Workload(
        key=subgraph.structural_hash,
        operator=subgraph.anchor,
        flops=subgraph.flops,
        weight_bytes=_weight_bytes(subgraph),
        activation_bytes=sum(spec.nbytes for spec in (*subgraph.inputs, *subgraph.outputs)),
        operators=subgraph.operators,
        inputs=tuple(spec.shape for spec in subgraph.inputs),
        weights=tuple(spec.shape for spec in subgraph.weights),
        outputs=tuple(spec.shape for spec in subgraph.outputs),
        attributes=subgraph.attributes,
        hints=hints or {},
    )


def _weight_bytes(subgraph: Subgraph) -> int:
    """Bytes of weights that a run reads: of a table, the rows that it takes."""
    read = subgraph.outputs if subgraph.anchor == "take" else subgraph.weights
    return sum(spec.nbytes for spec in read)


def tensor_spec(tensor: Tensor) -> TensorSpec:
    """Describe `tensor` to a cost model."""
    return TensorSpec(shape=tensor.shape, dtype=tensor.dtype, bytes=tensor.bytes)
