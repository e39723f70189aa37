"""How a network uses each of its inputs, read off its ONNX graph: masks, indices, positions, plain numbers."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import onnx
from onnx import NodeProto, TensorProto, numpy_helper

NUMBERS, INDICES, POSITIONS = "numbers", "indices", "positions"
KEPT, ADDED = "kept", "added"
"""Masks: true or 1 at what is kept; 0 or a very negative number, added before a softmax."""


@dataclass(frozen=True, kw_only=True)
class InputUse:
    """The use of one input."""

    kind: str = NUMBERS
    size: int | None = None
    """Of the axis that indices count along, where known."""


@dataclass(frozen=True)
class _Rule:
    """What it means that an operator reads a tensor at one of its places."""

    kind: str
    sized_by: int | None = None
    """Input of the operator whose axis gives the size."""
    axis: int | None = None
    """That axis; the attribute ``axis`` where None."""


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
"""Operators that tell what one of their inputs is."""

_RENAMING = frozenset(
    {"Cast", "Expand", "Flatten", "Identity", "Reshape", "Slice", "Squeeze", "Tile", "Transpose", "Unsqueeze"}
)  # fmt: skip
"""Operators that pass the elements of their first input on."""
_LOGICAL = frozenset(
    {"And", "Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Not", "Or"}
)
"""Operators whose result says of elements whether they are kept."""
_ARITHMETIC = frozenset({"Sub", "Mul", "Div", "Neg"})
"""Operators that make a mask to be added of one that says what is kept."""
_PRODUCTS = frozenset({"Einsum", "MatMul"})
"""Operators that make angles of positions."""

_MOST_BYTES = 64 << 20
"""Size up to which shapes are inferred: the inference copies the model. Those of weights and inputs are known anyway."""


@dataclass(frozen=True)
class _Reached:
    """A tensor that carries an input's elements."""

    tensor: str
    is_computed: bool = False
    """Whether arithmetic made another number of them."""
    is_added: bool = False
    """Whether they were added to something that is no constant."""
    is_multiplied: bool = False
    """Whether they went through a product of matrices."""


def uses_of(model: onnx.ModelProto) -> dict[str, InputUse]:
    """The use of each input of `model`, by name."""
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
    except Exception:  # the inference does not follow every model
        return model


@dataclass
class _Graph:
    """A model's graph with its consumers, constants and shapes."""

    model: onnx.ModelProto
    readers: dict[str, list[tuple[NodeProto, int]]] = field(default_factory=dict)
    constants: set[str] = field(default_factory=set)
    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)

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
        """A constant integer."""
        for tensor in self.model.graph.initializer:
            if tensor.name == name and tensor.data_location != TensorProto.EXTERNAL:
                return int(numpy_helper.to_array(tensor).reshape(-1)[0])
        return None


def _use(graph: _Graph, value: onnx.ValueInfoProto) -> InputUse:
    found = list(_found(graph, value))
    # An index outside its axis is an error in every network; anything else is a matter of how realistic inputs are.
    is_number = any(use.kind == NUMBERS for use in found)
    for kind in () if is_number else (INDICES, POSITIONS, ADDED, KEPT):
        sizes = [use.size for use in found if use.kind == kind]
        if sizes:
            is_position = kind == INDICES and "position" in value.name.lower()
            known = [size for size in sizes if size]
            return InputUse(kind=POSITIONS if is_position else kind, size=min(known, default=None))
    return InputUse()


def _found(graph: _Graph, value: onnx.ValueInfoProto) -> Iterator[InputUse]:
    """What the consumers of an input, and of tensors that carry its elements, tell of it."""
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
    """What one consumer tells; :data:`NUMBERS` where it computes with a float input itself."""
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
    """The flags of a node's result where it carries the elements on; else None."""
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
