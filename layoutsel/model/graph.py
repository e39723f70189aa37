"""Conversion of a partitioned module to a :class:`~layoutsel.cost.graph.Graph`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import tvm
from tvm import relax
from tvm.ir import Call, GlobalVar

from layoutsel.cost.graph import Edge, Graph, Subgraph
from layoutsel.cost.workload import SubgraphShapes
from layoutsel.model.work import read_operation, typed_shapes
from tvm_passes.decision import SubgraphId
from tvm_passes.ir import Var, main_bindings, results, tensor_types
from tvm_passes.name_subgraphs import own_bindings, structural_hash, subgraph_calls
from tvm_passes.rewrite_layouts import subgraph_id


def read_graph(module: tvm.IRModule, origins: Mapping[str, str] | None = None) -> Graph:
    """Read the graph of a partitioned module.

    Parameters
    ----------
    module
        Partitioned module (stage 1).
    origins
        Name of the ONNX node of each binding that has one, by the name of the binding.

    Raises
    ------
    UnsupportedModel
        If `main` is not straight-line or a shape is not static.
    """
    functions = (module[binding.value.op] for binding in subgraph_calls(module))
    subgraphs = tuple(_subgraph(function, origins or {}) for function in functions)
    return Graph(subgraphs, tuple(_edges(module)))


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
    return Subgraph(
        id=SubgraphId(str(function.attrs["layoutsel.subgraph"])),
        shapes=shapes,
        structural_hash=structural_hash(function),
        names=tuple(
            dict.fromkeys(
                origins[b.var.name] for b in own_bindings(function) if b.var.name in origins
            )
        ),
    )


def _edges(module: tvm.IRModule) -> Iterator[Edge]:
    main = module["main"]
    source: dict[Var, tuple[SubgraphId | None, int]] = {
        param: (None, index) for index, param in enumerate(main.params)
    }
    for binding in main_bindings(main):
        value = binding.value
        if isinstance(value, relax.TupleGetItem) and value.tuple_value in source:
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
    yield from _reads(results(main), source, None)


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
