"""The `ModelGraph`: a partitioned module as sub-graphs, tensors and what each costs at least."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

import tvm
import tvm_ffi
from tvm import relax
from tvm.ir import Call, GlobalVar

from layoutsel.cost.operations import TypedShape
from layoutsel.cost.workload import SubgraphShapes
from layoutsel.model.work import read_operation, typed_shapes
from tvm_passes.decision import SubgraphId
from tvm_passes.ir import Var, leaves, main_bindings, tensor_types
from tvm_passes.rewrite_layouts import subgraph_id


@dataclass(frozen=True, kw_only=True)
class Subgraph:
    """The unit of decision: an anchor operator with what is fused around it."""

    id: SubgraphId
    shapes: SubgraphShapes
    """Its operators and tensors; a cost model is told of these alone."""
    structural_hash: str
    """Equal for sub-graphs that compute the same function of their inputs and weights."""
    names: tuple[str, ...] = ()
    """Names of the ONNX nodes that it came from, where known."""

    @property
    def anchor(self) -> str:
        """Anchor operator, such as ``nn.conv2d``; ``elementwise`` or ``movement`` where there is none."""
        return self.shapes.anchor

    @property
    def operators(self) -> tuple[str, ...]:
        """Operators in order of execution, without those that dequantise operands."""
        return self.shapes.operators

    @property
    def inputs(self) -> tuple[TypedShape, ...]:
        """Activations that come in."""
        return self.shapes.inputs

    @property
    def weights(self) -> tuple[TypedShape, ...]:
        """Constants that are parameters."""
        return self.shapes.weights

    @property
    def outputs(self) -> tuple[TypedShape, ...]:
        """Results that go out."""
        return self.shapes.outputs

    @cached_property
    def flops(self) -> int:
        """Arithmetic operations, a multiply-add counted as two."""
        return self.shapes.flops

    @cached_property
    def attributes(self) -> Mapping[str, tuple[int, ...]]:
        """Integer attributes of the anchor operator, such as ``strides``."""
        return self.shapes.attributes

    @property
    def is_quantized(self) -> bool:
        """Whether integers that stand for numbers come in or go out."""
        return any(spec.dtype in ("int8", "uint8") for spec in (*self.inputs, *self.outputs))

    @property
    def nbytes(self) -> int:
        """Bytes read and written at least: every input, weight and result once."""
        return sum(spec.nbytes for spec in (*self.inputs, *self.weights, *self.outputs))


@dataclass(frozen=True, kw_only=True)
class Edge:
    """One tensor's way from where it is made to where it is read."""

    producer: SubgraphId | None
    """None for a model input."""
    output_index: int
    """Which result of the producer, or which model input."""
    consumer: SubgraphId | None
    """None for a model result."""
    input_index: int
    """Which activation of the consumer, or which model result."""
    tensor: TypedShape


@dataclass(frozen=True)
class ModelGraph:
    """A partitioned module (stage 1) and its reading as a graph."""

    module: tvm.IRModule
    subgraphs: tuple[Subgraph, ...]
    """In order of execution."""
    edges: tuple[Edge, ...]

    @cached_property
    def functions(self) -> Mapping[SubgraphId, relax.Function]:
        """The sub-graphs' functions."""
        return {
            subgraph: function
            for function in self.module.functions.values()
            if (subgraph := subgraph_id(function)) is not None
        }

    @cached_property
    def by_id(self) -> Mapping[SubgraphId, Subgraph]:
        """The sub-graphs by id."""
        return {subgraph.id: subgraph for subgraph in self.subgraphs}

    @classmethod
    def read(cls, module: tvm.IRModule, origins: Mapping[str, str] | None = None) -> ModelGraph:
        """Read the graph off a partitioned module.

        Parameters
        ----------
        module
            Stage 1.
        origins
            ONNX node of a binding, by the binding's name.

        Raises
        ------
        UnsupportedModel
            If `main` is not straight-line or a shape is not static.
        """
        calls = list(_subgraph_calls(module))
        subgraphs = tuple(_subgraph(module[call.op], origins or {}) for _, call in calls)
        return cls(module, subgraphs, tuple(_edges(module)))


def _subgraph_calls(module: tvm.IRModule) -> Iterator[tuple[Var, Call]]:
    for binding in main_bindings(module["main"]):
        value = binding.value
        called = value.op if isinstance(value, Call) else None
        if isinstance(called, GlobalVar) and subgraph_id(module[called]) is not None:
            yield binding.var, value


def structural_hash(function: relax.Function) -> str:
    """Hash of what a sub-graph function computes, whatever its id and names."""
    anonymous = function.without_attr("layoutsel.subgraph")
    return f"{tvm_ffi.structural_hash(anonymous, map_free_vars=True) & (2**64 - 1):016x}"


def _subgraph(function: relax.Function, origins: Mapping[str, str]) -> Subgraph:
    count = int(function.attrs["layoutsel.num_activations"])
    types = [param.ty for param in function.params]
    bindings = main_bindings(function)
    shapes = SubgraphShapes(
        operations=tuple(read_operation(b.value, b.var.ty) for b in bindings),
        inputs=typed_shapes([leaf for ty in types[:count] for leaf in tensor_types(ty)]),
        weights=typed_shapes(types[count:]),
        outputs=typed_shapes(tensor_types(function.ret_ty)),
        named_anchor=str(function.attrs["layoutsel.anchor"]),
    )
    own = bindings[len(bindings) - len(shapes.own) :]
    return Subgraph(
        id=SubgraphId(str(function.attrs["layoutsel.subgraph"])),
        shapes=shapes,
        structural_hash=structural_hash(function),
        names=tuple(dict.fromkeys(origins[b.var.name] for b in own if b.var.name in origins)),
    )


def _edges(module: tvm.IRModule) -> Iterator[Edge]:
    main = module["main"]
    source: dict[Var, tuple[SubgraphId | None, int]] = {
        param: (None, index) for index, param in enumerate(main.params)
    }
    tuples: dict[Var, relax.Expr] = {}
    for binding in main_bindings(main):
        value = tuples.get(binding.value, binding.value)
        if isinstance(value, relax.Tuple):
            tuples[binding.var] = value
        elif isinstance(value, relax.TupleGetItem) and value.tuple_value in source:
            producer, _ = source[value.tuple_value]
            source[binding.var] = (producer, value.index)
        elif isinstance(value, Var) and value in source:
            source[binding.var] = source[value]
        elif isinstance(value, Call) and isinstance(value.op, GlobalVar):
            function = module[value.op]
            consumer = subgraph_id(function)
            if consumer is None:
                continue
            count = int(function.attrs["layoutsel.num_activations"])
            yield from _reads(value.args[:count], source, consumer)
            source[binding.var] = (consumer, 0)
    result = main.body.body
    yield from _reads(list(leaves(tuples.get(result, result))), source, None)


def _reads(
    values: list[relax.Expr],
    source: Mapping[Var, tuple[SubgraphId | None, int]],
    consumer: SubgraphId | None,
) -> Iterator[Edge]:
    for index, value in enumerate(values):
        if isinstance(value, Var) and value in source and isinstance(value.ty, relax.TensorType):
            producer, output_index = source[value]
            (tensor,) = typed_shapes([value.ty])
            yield Edge(
                producer=producer,
                output_index=output_index,
                consumer=consumer,
                input_index=index,
                tensor=tensor,
            )
