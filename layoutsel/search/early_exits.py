"""Early exits of searched networks: heads on the tensors of parts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from onnx import ModelProto, helper

from layoutsel.exits.spec import FORMAT, Exit, ExitSpec
from layoutsel.search.parts import HEAD, Part, PartGraph, PartSignature
from layoutsel.search.trained import PartWeights, part_of, write_trained
from tvm_passes.errors import LayoutselError

FINAL = "final"
"""Name of the last exit."""


def with_exits(graph: PartGraph, after: Sequence[str]) -> PartGraph:
    """Add a head to the tensor of each part that `after` names; they are ``exit1``, ``exit2``, ….

    Raises
    ------
    LayoutselError
        If there is no such part, or it is named twice.
    """
    last = graph.parts[-1]
    names = [part.name for part in graph.parts[:-1]]
    for name in after:
        if name not in names or list(after).count(name) > 1:
            raise LayoutselError(
                f"exit after {name!r}: expected different ones of {', '.join(names)}"
            )
    ordered = sorted(after, key=names.index)
    heads = {name: f"exit{number}" for number, name in enumerate(ordered, start=1)}
    parts: list[Part] = []
    for part in graph.parts:
        parts.append(part)
        if part.name in heads:
            signature = PartSignature(
                operation=HEAD,
                input_shape=part.signature.output_shape,
                channels=last.signature.channels,
            )
            parts.append(Part(name=heads[part.name], signature=signature, inputs=(part.name,)))
    return replace(graph, parts=tuple(parts))


def heads_of(graph: PartGraph) -> tuple[str, ...]:
    """Heads of a network, the final one last."""
    return tuple(part.name for part in graph.parts if part.signature.operation == HEAD)


def write_with_exits(graph: PartGraph, weights: PartWeights, name: str = "network") -> ModelProto:
    """Write a network with an output for each head, and the list of its exits.

    Parameters
    ----------
    graph
        Network of :func:`with_exits`.
    weights
        Weights by part.
    name
        Name of the model.
    """
    model = write_trained(graph, weights, name)
    made = {part_of(node.name): node.output[0] for node in model.graph.node}
    (final,) = model.graph.output
    classes = graph.parts[-1].signature.channels
    del model.graph.output[:]
    heads = heads_of(graph)
    for head in heads[:-1]:
        value = helper.make_tensor_value_info(
            made[head], final.type.tensor_type.elem_type, (1, classes)
        )
        model.graph.output.append(value)
    model.graph.output.append(final)
    names = dict(zip(heads, (*heads[:-1], FINAL), strict=True))
    exits = tuple(Exit(name=names[head], output=made[head], is_probability=False) for head in heads)
    ExitSpec(format=FORMAT, model_hash="", exits=exits).embed(model)
    return model


def placed_with_exits(graph: PartGraph, nodes: Mapping[str, str]) -> dict[str, str]:
    """Node of each part; an early exit is on that of its tensor."""
    return {part.name: nodes.get(part.name, nodes.get(part.inputs[0], "")) for part in graph.parts}
