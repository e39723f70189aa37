"""A model as a graph of sub-graphs and tensors: the input of planning, without code."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from layoutsel.cost.operations import TypedShape
from layoutsel.cost.tensor import Tensor, TensorUse
from layoutsel.cost.workload import SubgraphShapes
from tvm_passes.decision import SubgraphId


@dataclass(frozen=True, kw_only=True)
class Subgraph:
    """The unit of decision: an anchor operator with the operators that are fused around it."""

    id: SubgraphId
    """Identifier, unique within the graph."""
    shapes: SubgraphShapes
    """Operators and tensors of the sub-graph, as a cost model sees it."""
    structural_hash: str
    """Hash of the function; sub-graphs that compute the same from inputs and weights share it."""
    names: tuple[str, ...] = ()
    """Names of the source ONNX nodes, where known."""

    @property
    def anchor(self) -> str:
        """Anchor operator, such as ``nn.conv2d``; else ``elementwise`` or ``movement``."""
        return self.shapes.anchor

    @property
    def operators(self) -> tuple[str, ...]:
        """Operators in order of execution, without those that dequantise operands."""
        return self.shapes.operators

    @property
    def inputs(self) -> tuple[TypedShape, ...]:
        """Activations that the sub-graph reads."""
        return self.shapes.inputs

    @property
    def weights(self) -> tuple[TypedShape, ...]:
        """Constants that are parameters, such as filters and biases."""
        return self.shapes.weights

    @property
    def outputs(self) -> tuple[TypedShape, ...]:
        """Results of the sub-graph."""
        return self.shapes.outputs

    @cached_property
    def flops(self) -> int:
        """Number of arithmetic operations; a multiply-add counts as two."""
        return self.shapes.flops

    @cached_property
    def attributes(self) -> Mapping[str, tuple[int, ...]]:
        """Integer attributes of the anchor operator, such as ``strides``."""
        return self.shapes.attributes

    @property
    def is_quantized(self) -> bool:
        """True if an input or a result holds quantised integers."""
        return any(spec.dtype in ("int8", "uint8") for spec in (*self.inputs, *self.outputs))

    @property
    def nbytes(self) -> int:
        """Minimum number of bytes read and written: every input, weight and result once."""
        return sum(spec.nbytes for spec in (*self.inputs, *self.weights, *self.outputs))


@dataclass(frozen=True, kw_only=True)
class Edge:
    """A data-flow edge: one tensor from its producer to one consumer."""

    producer: SubgraphId | None
    """Sub-graph that computes the tensor; None for a model input."""
    output_index: int
    """Index among the results of the producer, or among the model inputs."""
    consumer: SubgraphId | None
    """Sub-graph that reads the tensor; None for a model result."""
    input_index: int
    """Index among the activations of the consumer, or among the model results."""
    tensor: TypedShape
    """Shape and element type."""


@dataclass(frozen=True)
class Graph:
    """The sub-graphs of a model and the tensors between them."""

    subgraphs: tuple[Subgraph, ...]
    """Sub-graphs in order of execution."""
    edges: tuple[Edge, ...]
    """Edges in order of execution of their consumers; model results come last."""

    @cached_property
    def by_id(self) -> Mapping[SubgraphId, Subgraph]:
        """Sub-graphs by id."""
        return {subgraph.id: subgraph for subgraph in self.subgraphs}

    @cached_property
    def tensors(self) -> tuple[Tensor, ...]:
        """Tensors with all their uses; their boundaries have no prices yet."""
        grouped: dict[tuple[SubgraphId | None, int], list[Edge]] = {}
        for edge in self.edges:
            grouped.setdefault((edge.producer, edge.output_index), []).append(edge)
        return tuple(_tensor(edges) for edges in grouped.values())

    @property
    def ids(self) -> tuple[SubgraphId, ...]:
        """Ids in order of execution."""
        return tuple(subgraph.id for subgraph in self.subgraphs)

    @cached_property
    def width(self) -> int:
        """Upper bound on the number of sub-graphs that can run at the same time.

        It is the number of chains that hold all sub-graphs (Dilworth, "A decomposition theorem for
        partially ordered sets", 1950), made greedily.
        """
        position = {id_: number for number, id_ in enumerate(self.ids)}
        before = [0] * len(position)  # bit sets
        for edge in self.edges:
            if edge.producer is not None and edge.consumer is not None:
                maker, reader = position[edge.producer], position[edge.consumer]
                before[reader] |= before[maker] | 1 << maker
        ends: list[int] = []
        for number, earlier in enumerate(before):
            chain = max((end for end in ends if earlier >> end & 1), default=None)
            if chain is not None:
                ends.remove(chain)
            ends.append(number)
        return len(ends)


def _tensor(edges: Sequence[Edge]) -> Tensor:
    """Merge the edges that carry one tensor."""
    first = edges[0]
    return Tensor(
        producer=first.producer,
        output_index=first.output_index,
        uses=tuple(TensorUse(consumer=e.consumer, input_index=e.input_index) for e in edges),
        shape=first.tensor.shape,
        dtype=first.tensor.dtype,
        bytes=first.tensor.nbytes,
    )
