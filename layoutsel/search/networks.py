"""ONNX models with random weights: of a network, and of many parts side by side."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from onnx import ModelProto

from layoutsel.search.operations import OPERATIONS
from layoutsel.search.parts import HEAD, INPUT, SUM, PartGraph, PartSignature
from layoutsel.zoo.architectures.builder import NetworkBuilder, TensorRef

WritePart = Callable[[NetworkBuilder, Sequence[TensorRef], PartSignature], TensorRef]
"""Function that adds a part with these inputs to an ONNX graph."""


def write_network(graph: PartGraph, name: str = "network", seed: int = 0) -> ModelProto:
    """Write a network with random weights; the nodes of a part are called ``<part>/<node>``.

    Parameters
    ----------
    graph
        Parts of the network.
    name
        Name of the model.
    seed
        Seed of the weights.
    """
    builder = NetworkBuilder(name, seed)
    tensors = {INPUT: builder.input("x", (1, *graph.input_shape))}
    for part in graph.parts:
        builder.scope = f"{part.name}/"
        read = [tensors[one] for one in part.inputs]
        tensors[part.name] = write_part(builder, read, part.signature)
    last = graph.parts[-1]
    builder.output(tensors[last.name], _output_shape(last.signature))
    return builder.model()


def write_catalogue(signatures: Sequence[PartSignature], seed: int = 0) -> ModelProto:
    """Write one model in which each signature is a branch with inputs and an output of its own.

    Inputs and outputs are in the order of `signatures`; a branch has as many inputs as its part.
    """
    builder = NetworkBuilder("catalogue", seed)
    for number, signature in enumerate(signatures):
        shape = (1, *signature.input_shape)
        read = [builder.input(f"x{number}.{index}", shape) for index in range(signature.inputs)]
        made = write_part(builder, read, signature)
        builder.output(made, _output_shape(signature))
    return builder.model()


def _output_shape(signature: PartSignature) -> tuple[int, ...]:
    shape = signature.output_shape
    return (1, shape[0]) if signature.operation == HEAD else (1, *shape)


def write_part(
    builder: NetworkBuilder, read: Sequence[TensorRef], signature: PartSignature
) -> TensorRef:
    """Add a part that reads these tensors to an ONNX graph, with random weights."""
    if signature.operation in _WRITERS:
        return _WRITERS[signature.operation](builder, read, signature)
    write = OPERATIONS[signature.operation].write
    assert write is not None, f"{signature} computes nothing"
    return write(builder, read[0], signature.geometry)


def _write_sum(
    builder: NetworkBuilder, read: Sequence[TensorRef], signature: PartSignature
) -> TensorRef:
    del signature
    total = read[0]
    for term in read[1:]:
        total = builder.op("Add", total, term)
    return total


def _write_head(
    builder: NetworkBuilder, read: Sequence[TensorRef], signature: PartSignature
) -> TensorRef:
    mean = builder.op("Flatten", builder.op("GlobalAveragePool", read[0]))
    classes, channels = signature.channels, signature.input_shape[0]
    return builder.op("Gemm", mean, (classes, channels), (classes,), channels=classes, transB=1)


_WRITERS: Mapping[str, WritePart] = {SUM: _write_sum, HEAD: _write_head}
"""Writing of parts that are not chosen."""
