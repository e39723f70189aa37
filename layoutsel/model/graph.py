"""The `ModelGraph`: a partitioned module as sub-graphs, tensors and what each costs at least."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import tvm
import tvm_ffi
from tvm import relax
from tvm.ir import Call, GlobalVar

from layoutsel.model.work import flops
from tvm_passes.decision import SubgraphId
from tvm_passes.ir import Var, leaves, main_bindings, op_name, static_shape, tensor_types
from tvm_passes.rewrite_layouts import subgraph_id


@dataclass(frozen=True, kw_only=True)
class TensorSpec:
    """Logical shape and element type of a tensor."""

    shape: tuple[int, ...]
    dtype: str

    @property
    def nbytes(self) -> int:
        """Size in bytes."""
        size = tvm_ffi.dtype(self.dtype).itemsize
        for extent in self.shape:
            size *= extent
        return size

    def __str__(self) -> str:
        return "×".join(map(str, self.shape)) or "scalar"


@dataclass(frozen=True, kw_only=True)
class Subgraph:
    """The unit of decision: an anchor operator with what is fused around it."""

    id: SubgraphId
    anchor: str
    """Anchor operator, such as ``nn.conv2d``; ``elementwise`` or ``movement`` where there is none."""
    operators: tuple[str, ...]
    """Operators in order of execution, without what dequantises operands."""
    inputs: tuple[TensorSpec, ...]
    weights: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    flops: int
    """Arithmetic operations, a multiply-add counted as two."""
    structural_hash: str
    """Equal for sub-graphs that compute the same function of their inputs and weights."""
    attributes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    """Integer attributes of the anchor operator, such as ``strides``."""
    names: tuple[str, ...] = ()
    """Names of the ONNX nodes that it came from, where known."""

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
    tensor: TensorSpec


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


def _specs(types: list[relax.TensorType]) -> tuple[TensorSpec, ...]:
    return tuple(TensorSpec(shape=static_shape(ty), dtype=str(ty.dtype)) for ty in types)


def structural_hash(function: relax.Function) -> str:
    """Hash of what a sub-graph function computes, whatever its id and names."""
    anonymous = function.without_attr("layoutsel.subgraph")
    return f"{tvm_ffi.structural_hash(anonymous, map_free_vars=True) & (2**64 - 1):016x}"


def _subgraph(function: relax.Function, origins: Mapping[str, str]) -> Subgraph:
    count = int(function.attrs["layoutsel.num_activations"])
    types = [param.ty for param in function.params]
    bindings = main_bindings(function)
    own = _without_prologue(bindings)
    return Subgraph(
        id=SubgraphId(str(function.attrs["layoutsel.subgraph"])),
        anchor=str(function.attrs["layoutsel.anchor"]),
        operators=tuple(op_name(binding.value) for binding in own),
        inputs=_specs([leaf for ty in types[:count] for leaf in tensor_types(ty)]),
        weights=_specs(types[count:]),
        outputs=_specs(tensor_types(function.ret_ty)),
        flops=sum(flops(binding.value, binding.var.ty) for binding in bindings),
        structural_hash=structural_hash(function),
        attributes=_attributes([binding.value for binding in own]),
        names=tuple(dict.fromkeys(origins[b.var.name] for b in own if b.var.name in origins)),
    )


def _without_prologue(bindings: Sequence[relax.VarBinding]) -> Sequence[relax.VarBinding]:
    """`bindings` from the first on that does more than to dequantise an operand, if any does."""
    for position, binding in enumerate(bindings):
        if op_name(binding.value) != "dequantize":
            return bindings[position:]
    return bindings


_ATTRIBUTES = ("strides", "padding", "dilation", "groups", "pool_size", "axis", "axes")


def _attributes(values: Sequence[relax.Expr]) -> dict[str, tuple[int, ...]]:
    """Of the anchor, which comes first; of the first permutation, with the shape that it permutes."""
    found = _integer_attributes(values[0]) if values else {}
    for value in values:
        if op_name(value) == "permute_dims":
            shape = static_shape(value.args[0].ty)
            axes = value.attrs.axes or reversed(range(len(shape)))
            return {**found, "permuted": shape, "axes": tuple(int(axis) for axis in axes)}
    return found


def _integer_attributes(value: relax.Expr) -> dict[str, tuple[int, ...]]:
    """Those of :data:`_ATTRIBUTES` that a call has."""
    found: dict[str, tuple[int, ...]] = {}
    attrs = value.attrs if isinstance(value, Call) else None
    for name in _ATTRIBUTES if attrs is not None else ():
        attribute = getattr(attrs, name, None)
        if isinstance(attribute, int):
            found[name] = (int(attribute),)
        elif attribute is not None:
            found[name] = tuple(int(entry) for entry in attribute)
    return found


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
            (tensor,) = _specs([value.ty])
            yield Edge(
                producer=producer,
                output_index=output_index,
                consumer=consumer,
                input_index=index,
                tensor=tensor,
            )
