"""Use of each input of a network, found in its ONNX graph: masks, indices, positions, numbers."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import onnx
from onnx import NodeProto, TensorProto, numpy_helper

NUMBERS, INDICES, POSITIONS = "numbers", "indices", "positions"
"""Kinds of inputs: plain numbers, indices along an axis, positions in a sequence."""
KEPT, ADDED = "kept", "added"
"""Kinds of masks: 1 for kept elements; 0 or very negative, added before a softmax."""


@dataclass(frozen=True, kw_only=True)
class InputUse:
    """Use of one input."""

    kind: str = NUMBERS
    """Kind of the input, such as :data:`INDICES`."""
    size: int | None = None
    """Size of the axis that indices count along, where known."""


@dataclass(frozen=True)
class _Rule:
    """Conclusion from an operator that reads a tensor as one of its inputs."""

    kind: str
    """Kind of the tensor."""
    sized_by: int | None = None
    """Index of the operator's input whose axis gives the size."""
    axis: int | None = None
    """Axis that gives the size; None for the attribute ``axis``."""


_RULES: Mapping[tuple[str, int], _Rule] = {
    ("Gather", 1): _Rule(INDICES, 0),
    ("GatherElements", 1): _Rule(INDICES, 0),
    ("GatherND", 1): _Rule(INDICES, 0, 0),
    ("ScatterElements", 1): _Rule(INDICES, 0),
    ("ScatterND", 1): _Rule(INDICES, 0, 0),
    ("OneHot", 0): _Rule(INDICES, 1),
    ("Where", 0): _Rule(KEPT),
    ("Attention", 3): _Rule(ADDED),
    ("Sin", 0): _Rule(POSITIONS),
    ("Cos", 0): _Rule(POSITIONS),
}
"""Conclusions by operator and index of its input."""

_RENAMING = frozenset(
    {
        "Cast", "Expand", "Flatten", "Identity", "Reshape", "Slice", "Squeeze", "Tile",
        "Transpose", "Unsqueeze",
    }
)  # fmt: skip
"""Operators that only move the elements of their first input."""
_LOGICAL = frozenset(
    {"And", "Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Not", "Or"}
)
"""Operators whose result may be a mask of kept elements."""
_ARITHMETIC = frozenset({"Sub", "Mul", "Div", "Neg"})
"""Operators that turn a mask of kept elements into a mask to be added."""
_PRODUCTS = frozenset({"Einsum", "MatMul"})
"""Operators that turn positions into angles."""

_MOST_BYTES = 64 << 20
"""Maximum size of a model for shape inference, which copies it, bytes.

Larger models only have the shapes of weights and inputs.
"""


@dataclass(frozen=True)
class _Reached:
    """A tensor that carries an input's elements."""

    tensor: str
    """Name of the tensor."""
    is_computed: bool = False
    """True if arithmetic has changed the values."""
    is_added: bool = False
    """True if the values were added to a tensor that is not constant."""
    is_multiplied: bool = False
    """True if the values passed a matrix product."""


def uses_of(model: onnx.ModelProto) -> dict[str, InputUse]:
    """Find the use of each input of `model`, by name."""
    graph = _Graph(_with_shapes(model))
    return {
        value.name: _use(graph, value)
        for value in model.graph.input
        if value.name not in graph.constants
    }


def _with_shapes(model: onnx.ModelProto) -> onnx.ModelProto:
    if model.ByteSize() > _MOST_BYTES:
        return model
    try:
        return onnx.shape_inference.infer_shapes(model)
    except Exception:  # the inference fails on some valid models
        return model


@dataclass
class _Graph:
    """Graph of a model with its consumers, constants and shapes."""

    model: onnx.ModelProto
    """The model."""
    readers: dict[str, list[tuple[NodeProto, int]]] = field(default_factory=dict)
    """Consumers of each tensor, with the index of the input."""
    constants: set[str] = field(default_factory=set)
    """Names of constant tensors."""
    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    """Shapes of tensors; 0 for an unknown dimension."""

    def __post_init__(self) -> None:
        graph = self.model.graph
        for tensor in graph.initializer:
            self.constants.add(tensor.name)
            self.shapes[tensor.name] = tuple(tensor.dims)
        for node in graph.node:
            for index, name in enumerate(node.input):
                self.readers.setdefault(name, []).append((node, index))
            if all(name in self.constants for name in node.input):
                self.constants.update(node.output)
        for value in (*graph.input, *graph.value_info):
            sizes = value.type.tensor_type.shape.dim
            self.shapes.setdefault(value.name, tuple(dim.dim_value for dim in sizes))

    def value(self, name: str) -> int | None:
        """Return the first element of a constant integer tensor; None if it is not stored."""
        for tensor in self.model.graph.initializer:
            if tensor.name == name and tensor.data_location != TensorProto.EXTERNAL:
                return int(numpy_helper.to_array(tensor).reshape(-1)[0])
        return None


def _use(graph: _Graph, value: onnx.ValueInfoProto) -> InputUse:
    found = list(_found(graph, value))
    # An index outside its axis is always an error; other kinds only make inputs more realistic.
    is_number = any(use.kind == NUMBERS for use in found)
    for kind in () if is_number else (INDICES, POSITIONS, ADDED, KEPT):
        sizes = [use.size for use in found if use.kind == kind]
        if sizes:
            is_position = kind == INDICES and "position" in value.name.lower()
            known = [size for size in sizes if size]
            return InputUse(kind=POSITIONS if is_position else kind, size=min(known, default=None))
    return InputUse()


def _found(graph: _Graph, value: onnx.ValueInfoProto) -> Iterator[InputUse]:
    """Yield the uses of an input by all consumers of its elements."""
    is_float = value.type.tensor_type.elem_type in (
        TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE,
    )  # fmt: skip
    waiting = deque([_Reached(value.name)])
    seen = set(waiting)
    while waiting:
        reached = waiting.popleft()
        for node, place in graph.readers.get(reached.tensor, ()):
            yield from _told(graph, node, place, reached, is_float=is_float)
            after = _after(graph, node, place, reached, is_float=is_float)
            if after is None or not node.output:
                continue
            further = _Reached(node.output[0], *after)
            if further not in seen:
                seen.add(further)
                waiting.append(further)


def _told(
    graph: _Graph, node: NodeProto, place: int, reached: _Reached, *, is_float: bool
) -> Iterator[InputUse]:
    """Yield the use of an input by one consumer; :data:`NUMBERS` for arithmetic on floats."""
    rule = _RULES.get((node.op_type, place))
    if node.op_type == "Softmax" and reached.is_added and not reached.is_multiplied:
        yield InputUse(kind=ADDED if is_float and not reached.is_computed else KEPT)
    elif reached.is_added:
        return
    elif is_float:
        if rule is not None and rule.kind == ADDED:
            yield InputUse(kind=ADDED)
        elif _after(graph, node, place, reached, is_float=True) is None:
            yield InputUse(kind=NUMBERS)
    elif rule is not None and rule.kind == INDICES:
        if not reached.is_computed:
            yield InputUse(kind=INDICES, size=_size(graph, node, rule))
    elif rule is not None:
        yield InputUse(kind=KEPT if rule.kind == ADDED else rule.kind)


def _size(graph: _Graph, node: NodeProto, rule: _Rule) -> int | None:
    assert rule.sized_by is not None, "a rule for indices"
    name = node.input[rule.sized_by]
    if node.op_type == "OneHot":
        return graph.value(name)
    shape = graph.shapes.get(name, ())
    stated = next((one.i for one in node.attribute if one.name == "axis"), 0)
    axis = stated if rule.axis is None else rule.axis
    return shape[axis] if shape and -len(shape) <= axis < len(shape) else None


def _after(
    graph: _Graph, node: NodeProto, place: int, reached: _Reached, *, is_float: bool
) -> tuple[bool, bool, bool] | None:
    """Return the flags of a node's result if it carries the elements; else None."""
    computed, added, multiplied = reached.is_computed, reached.is_added, reached.is_multiplied
    operator = node.op_type
    if (operator in _RENAMING and place == 0) or operator == "Concat":
        return computed, added, multiplied
    if operator in _ARITHMETIC or operator in _LOGICAL or operator == "Where":
        return True, added, multiplied
    if operator in _PRODUCTS and not (is_float or added or multiplied):
        return True, added, True
    if operator != "Add":
        return None
    other = node.input[1 - place]
    return computed, added or other not in graph.constants, multiplied
