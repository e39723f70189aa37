"""Multi-exit networks as others run them: hand-split into segments, or with nested ``If`` operators.

Both are made of the scored ONNX model of a network, whose outputs are values, score and class of each exit in turn.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto, helper, shape_inference

from layoutsel.exits.scores import RESULTS


@dataclass(frozen=True)
class OnnxSegment:
    """A segment of the trunk with the exit at its end."""

    nodes: tuple[NodeProto, ...]
    reads: tuple[str, ...]
    """Tensors of earlier segments, and inputs of the model."""
    passes: tuple[str, ...]
    """Tensors for later segments."""
    results: tuple[str, ...]
    """Values, score and class of the exit."""


def segments_of(model: ModelProto) -> list[OnnxSegment]:
    """Divide a scored model: each segment has what its exit needs and no earlier exit does."""
    graph = model.graph
    producer = {name: number for number, node in enumerate(graph.node) for name in node.output}
    constants = {one.name for one in graph.initializer} | {""}
    outputs = [value.name for value in graph.output]
    exits = [outputs[k : k + RESULTS] for k in range(0, len(outputs), RESULTS)]
    done: set[int] = set()
    parts: list[list[int]] = []
    for results in exits:
        waiting, needed = [producer[name] for name in results], set()
        while waiting:
            number = waiting.pop()
            if number not in needed and number not in done:
                needed.add(number)
                waiting += [producer[n] for n in graph.node[number].input if n in producer]
        done |= needed
        parts.append(sorted(needed))
    found = []
    for index, part in enumerate(parts):
        made = {name for number in part for name in graph.node[number].output}
        read = [n for number in part for n in graph.node[number].input if n not in constants | made]
        later = {n for other in parts[index + 1 :] for k in other for n in graph.node[k].input}
        found.append(
            OnnxSegment(
                nodes=tuple(graph.node[number] for number in part),
                reads=tuple(dict.fromkeys(read)),
                passes=tuple(name for name in dict.fromkeys(made) if name in later),
                results=tuple(exits[index]),
            )
        )
    return found


def segment_models(model: ModelProto) -> list[ModelProto]:
    """Make an ONNX model of each segment, with the exit's score and class and what later ones read."""
    types = _types(model)
    return [
        _model(
            model,
            segment.nodes,
            [types[name] for name in segment.reads],
            [types[name] for name in (*segment.results, *segment.passes)],
        )
        for segment in segments_of(model)
    ]


def trunk_model(model: ModelProto) -> ModelProto:
    """Make the model of the final exit alone: values, score and class."""
    outputs = [value.name for value in model.graph.output][-RESULTS:]
    producer = {name: node for node in model.graph.node for name in node.output}
    waiting, needed = list(outputs), set()
    while waiting:
        node = producer.get(waiting.pop())
        if node is not None and id(node) not in needed:
            needed.add(id(node))
            waiting += node.input
    nodes = [node for node in model.graph.node if id(node) in needed]
    types = _types(model)
    return _model(model, nodes, list(model.graph.input), [types[name] for name in outputs])


def if_model(model: ModelProto, thresholds: Sequence[float | None]) -> ModelProto:
    """Make a model that leaves at the first sure exit: an ``If`` whose else-branch holds the rest."""
    segments = segments_of(model)
    types = _types(model)
    constants = [
        helper.make_tensor(f"threshold{k}", TensorProto.FLOAT, [], [2.0 if t is None else t])
        for k, t in enumerate(thresholds)
    ]

    def rest(index: int) -> tuple[list[NodeProto], list[str]]:
        segment = segments[index]
        nodes = list(segment.nodes)
        if index == len(segments) - 1:
            return nodes, list(segment.results)
        score = segment.results[1]
        scalar, sure = f"{score}/scalar", f"{score}/sure"
        nodes.append(helper.make_node("Squeeze", [score], [scalar]))
        nodes.append(helper.make_node("GreaterOrEqual", [scalar, f"threshold{index}"], [sure]))
        names = [f"if{index}/{k}" for k in range(RESULTS)]
        own = [f"own{index}/{k}" for k in range(RESULTS)]
        copies = [
            helper.make_node("Identity", [result], [name])
            for result, name in zip(segment.results, own, strict=True)
        ]
        inner, results = rest(index + 1)
        nodes.append(
            helper.make_node(
                "If",
                [sure],
                names,
                then_branch=_graph(f"then{index}", copies, own, segment.results, types),
                else_branch=_graph(f"else{index}", inner, results, segments[-1].results, types),
            )
        )
        return nodes, names

    nodes, names = rest(0)
    outputs = [
        _renamed(types[like], name) for name, like in zip(names, segments[-1].results, strict=True)
    ]
    made = _model(model, nodes, list(model.graph.input), outputs)
    made.graph.initializer.extend(constants)
    return made


def _graph(
    name: str,
    nodes: Sequence[NodeProto],
    results: Sequence[str],
    like: Sequence[str],
    types: dict[str, ValueInfoProto],
) -> object:
    outputs = [_renamed(types[old], new) for old, new in zip(like, results, strict=True)]
    return helper.make_graph(nodes, name, [], outputs)


def _renamed(value: ValueInfoProto, name: str) -> ValueInfoProto:
    made = ValueInfoProto()
    made.CopyFrom(value)
    made.name = name
    return made


def _types(model: ModelProto) -> dict[str, ValueInfoProto]:
    inferred = shape_inference.infer_shapes(model)
    graph = inferred.graph
    return {value.name: value for value in (*graph.value_info, *graph.input, *graph.output)}


def _model(
    model: ModelProto,
    nodes: Sequence[NodeProto],
    inputs: Sequence[ValueInfoProto],
    outputs: Sequence[ValueInfoProto],
) -> ModelProto:
    used = {name for node in nodes for name in _names(node)}
    weights = [one for one in model.graph.initializer if one.name in used]
    graph = helper.make_graph(list(nodes), model.graph.name, inputs, outputs, weights)
    return helper.make_model(
        graph, opset_imports=model.opset_import, ir_version=min(model.ir_version, 10)
    )


def _names(node: NodeProto) -> set[str]:
    """Tensors that a node reads, also within its sub-graphs."""
    found = set(node.input)
    for attribute in node.attribute:
        for inner in attribute.g.node:
            found |= _names(inner)
    return found
