"""A smaller graph that fails in the same way."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import onnx
from onnx import shape_inference

STEPS = 40
"""Trials that shrinking takes at most."""


def shrunk(model: onnx.ModelProto, fails: Callable[[onnx.ModelProto], bool]) -> onnx.ModelProto:
    """The smallest part of `model` that was found for which `fails` holds, within :data:`STEPS` trials."""
    left = STEPS
    while True:
        for part in _parts(model):
            if left == 0:
                return model
            left -= 1
            if fails(part):
                model = part
                break
        else:
            return model


def _parts(model: onnx.ModelProto) -> Iterator[onnx.ModelProto]:
    """Smaller graphs, the smallest first in each way: those that end earlier, then those that begin later."""
    made = [name for node in model.graph.node for name in node.output]
    results = [value.name for value in model.graph.output]
    if len(results) > 1:
        yield from (
            _between(model, [value.name for value in model.graph.input], [r]) for r in results
        )
    for name in made[:-1]:
        yield _between(model, [value.name for value in model.graph.input], [name])
    for name in reversed(made[:-1]):
        if name not in results:
            part = _between(model, [*[value.name for value in model.graph.input], name], results)
            if len(part.graph.node) < len(model.graph.node):
                yield part


def _between(
    model: onnx.ModelProto, inputs: Sequence[str], outputs: Sequence[str]
) -> onnx.ModelProto:
    """The part of `model` that computes `outputs` from `inputs`."""
    inferred = shape_inference.infer_shapes(model, data_prop=True).graph
    known = {v.name: v for v in (*inferred.input, *inferred.value_info, *inferred.output)}
    wanted, nodes = set(outputs), []
    for node in reversed(model.graph.node):
        if any(name in wanted and name not in inputs for name in node.output):
            nodes.insert(0, node)
            wanted.update(node.input)
    weights = [tensor for tensor in model.graph.initializer if tensor.name in wanted]
    part = onnx.helper.make_graph(
        nodes,
        "shrunk",
        [known[name] for name in inputs if name in wanted and name in known],
        [known.get(name, onnx.ValueInfoProto(name=name)) for name in outputs],
        weights,
    )
    return onnx.helper.make_model(
        part, opset_imports=model.opset_import, ir_version=model.ir_version
    )
