"""Legal values of the inputs that a network reads as indices.

The indices of a Gather must lie within its axis: ONNX Runtime raises an error otherwise. Input
elements are followed to such operators through operators that move them, and through arithmetic
with constants. Indices computed by other operators (ArgMax, TopK, a remainder, a sum of two inputs)
restrict no input.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce

import numpy as np
import onnx_ir as ir

from layoutsel.device.signature import ValueRange
from layoutsel.model.affine import ARITHMETIC, Affine, Array, joined, number_of
from layoutsel.model.import_evaluation import evaluate
from layoutsel.model.value_pieces import pieces

MOST_ELEMENTS = 1 << 22
"""Maximum number of elements of a tensor that is followed."""
_MOST_FORMS = 4
"""Maximum number of alternative forms of a value."""
_NOBODY = -1
"""Marker of an element that comes from no input."""

_INTEGERS = frozenset(
    {
        ir.DataType.INT8, ir.DataType.INT16, ir.DataType.INT32, ir.DataType.INT64,
        ir.DataType.UINT8, ir.DataType.UINT16, ir.DataType.UINT32, ir.DataType.UINT64,
    }
)  # fmt: skip
_FLOATS = frozenset({ir.DataType.FLOAT, ir.DataType.DOUBLE})


@dataclass(frozen=True)
class _Traced:
    """A tensor that holds elements of inputs."""

    elements: np.ndarray
    """Number of the input element at each position, or :data:`_NOBODY`.

    All inputs share one numbering.
    """
    forms: tuple[Affine, ...] = (Affine(),)
    """Possible dependences of the value on the element; data selects one of several."""


_Tensors = dict[ir.Value, _Traced]


def input_ranges(model: ir.Model) -> dict[str, tuple[ValueRange, ...]]:
    """Compute the legal values of a model's inputs, by name; unrestricted inputs are omitted."""
    needed = _needed(model.graph)
    tensors: _Tensors = {}
    starts: dict[ir.Value, int] = {}
    end = 0
    for value in model.graph.inputs:
        if value in needed and value.dtype in _INTEGERS | _FLOATS and _is_small(value):
            shape = _known_shape(value)
            starts[value] = end
            tensors[value] = _Traced(end + np.arange(math.prod(shape)).reshape(shape))
            end += math.prod(shape)
    low, high = np.full(end, -np.inf), np.full(end, np.inf)
    opset = model.graph.opset_imports.get("", 1)
    for node in model.graph if starts else ():
        _narrow(node, tensors, low, high)
        if not needed.isdisjoint(node.outputs) and all(map(_is_small, node.outputs)):
            tensors.update(zip(node.outputs, _after(node, tensors, opset), strict=False))
    found = {}
    for value, start in starts.items():
        part = slice(start, start + math.prod(_known_shape(value)))
        found[str(value.name)] = pieces(low[part], high[part], *_representable(value))
    return {name: ranges for name, ranges in found.items() if ranges}


def _representable(value: ir.Value) -> tuple[int, int]:
    assert value.dtype is not None, "of numbers"
    dtype = value.dtype if value.dtype in _INTEGERS else ir.DataType.INT64
    limits = np.iinfo(dtype.numpy())
    return int(limits.min), int(limits.max)


def _of_axis(node: ir.Node) -> tuple[Array, Array] | None:
    """Return the legal indices along one axis; negative ones count from the end."""
    shape = _shape(node.inputs[0])
    return None if not shape else _from_end(shape[node.attributes.get_int("axis", 0)])


def _of_coordinates(node: ir.Node) -> tuple[Array, Array] | None:
    """Return the legal indices along one axis for each number of the last dimension."""
    shape, indices = _shape(node.inputs[0]), _shape(node.inputs[1])
    if shape is None or not indices:
        return None
    batch = node.attributes.get_int("batch_dims", 0)
    return _from_end(np.array(shape[batch : batch + indices[-1]], dtype=float))


def _from_end(size: Array) -> tuple[Array, Array]:
    return -size, size - 1


def _of_result(node: ir.Node) -> tuple[Array, Array] | None:
    """Return the legal indices into the whole result."""
    shape = _shape(node.outputs[0])
    return None if shape is None else (0.0, math.prod(shape) - 1.0)


_READERS: Mapping[str, Callable[[ir.Node], tuple[Array, Array] | None]] = {
    "Gather": _of_axis,
    "GatherElements": _of_axis,
    "GatherND": _of_coordinates,
    "MaxUnpool": _of_result,
    "Scatter": _of_axis,
    "ScatterElements": _of_axis,
    "ScatterND": _of_coordinates,
}
"""Functions by operator that return the least and the largest legal index in the second input.

OneHot is not among them: an illegal index gives a row of off values.
"""


def _indices(node: ir.Node) -> ir.Value | None:
    """Return the tensor that a node reads as indices; None without one."""
    return node.inputs[1] if node.domain == "" and node.op_type in _READERS else None


def _narrow(node: ir.Node, tensors: _Tensors, low: np.ndarray, high: np.ndarray) -> None:
    """Restrict the legal values of the elements that `node` reads as indices."""
    indices = _indices(node)
    legal = _READERS[node.op_type](node) if indices in tensors else None
    if indices is None or legal is None:
        return
    found = tensors[indices]
    bounds = [form.preimage(*legal) for form in found.forms]
    # The selected form is unknown: only a value that is illegal in all of them is excluded.
    least = reduce(np.minimum, [one for one, _ in bounds])
    most = reduce(np.maximum, [one for _, one in bounds])
    known = found.elements != _NOBODY
    read, shape = found.elements[known], found.elements.shape
    np.maximum.at(low, read, np.broadcast_to(least, shape)[known])
    np.minimum.at(high, read, np.broadcast_to(most, shape)[known])


def _needed(graph: ir.Graph) -> set[ir.Value]:
    """Collect the tensors that reach the indices of an operator whose result is used."""
    used: set[ir.Value] = set(graph.outputs)
    needed: set[ir.Value] = set()
    for node in reversed(graph):
        if used.isdisjoint(node.outputs):
            continue
        inputs = [value for value in node.inputs if value is not None]
        used.update(inputs)
        if (indices := _indices(node)) is not None:
            needed.add(indices)
        if node.op_type in _RULES and not needed.isdisjoint(node.outputs):
            needed.update(inputs)
    return needed


def _after(node: ir.Node, tensors: _Tensors, opset: int) -> Sequence[_Traced]:
    """Trace elements of inputs into the results of `node`; empty if a result is unknown."""
    rule = _RULES.get(node.op_type) if node.domain == "" else None
    return rule(node, tensors, opset) if rule is not None else ()


def _moved(node: ir.Node, tensors: _Tensors, opset: int) -> Sequence[_Traced]:
    """Trace elements of the first input, moved as constants determine."""
    source, constants = _parts(node, tensors)
    if source is None or tensors.get(node.inputs[0]) is not source:
        return ()
    proto, count = ir.serde.serialize_node(node), len(node.outputs)

    def move(array: np.ndarray) -> Sequence[np.ndarray]:
        return evaluate(proto, [array, *constants], opset) or ()

    elements = move(source.elements)
    if not elements:
        return ()
    forms = [form.moved(source.elements.shape, move, count) for form in source.forms]
    return [_Traced(*each) for each in zip(elements, zip(*forms, strict=True), strict=True)]


def _cast(node: ir.Node, tensors: _Tensors, _opset: int) -> Sequence[_Traced]:
    """Trace through a cast: integers keep their value, floats keep their integral part.

    Only the integral part is restricted.
    """
    given, dtype = node.inputs[0], node.outputs[0].dtype
    is_whole = given is not None and given.dtype in _INTEGERS
    keeps = dtype in _INTEGERS or (dtype in _FLOATS and is_whole)
    return (tensors[given],) if given in tensors and keeps else ()


def _concat(node: ir.Node, tensors: _Tensors, _opset: int) -> Sequence[_Traced]:
    """Trace through a concatenation of several tensors."""
    axis = node.attributes.get_int("axis", 0)
    shapes = [_shape(value) for value in node.inputs]
    known = [shape for shape in shapes if shape is not None]
    if len(known) < len(shapes):
        return ()
    parts = [
        tensors.get(value, _Traced(np.full(shape, _NOBODY)))
        for value, shape in zip(node.inputs, known, strict=True)
    ]
    if any(len(part.forms) > 1 for part in parts):
        return ()
    elements = np.concatenate([part.elements for part in parts], axis)
    return (_Traced(elements, (joined([part.forms[0] for part in parts], known, axis),)),)


def _chosen(node: ir.Node, tensors: _Tensors, _opset: int) -> Sequence[_Traced]:
    """Trace one of two forms of the same elements, as exporters write for indices from the end."""
    parts = [tensors.get(value) for value in node.inputs[1:] if value is not None]
    if len(parts) != 2 or parts[0] is None or parts[1] is None:
        return ()
    elements, forms = parts[0].elements, parts[0].forms + parts[1].forms
    if not np.array_equal(elements, parts[1].elements) or len(forms) > _MOST_FORMS:
        return ()
    return (_Traced(np.broadcast_to(elements, _known_shape(node.outputs[0])), forms),)


def _calculated(node: ir.Node, tensors: _Tensors, _opset: int) -> Sequence[_Traced]:
    """Trace through arithmetic of one traced integer tensor with constants."""
    source, constants = _parts(node, tensors)
    if source is None or node.outputs[0].dtype not in _INTEGERS:
        return ()
    numbers = [None if array is None else number_of(array) for array in constants]
    is_left = tensors.get(node.inputs[0]) is source
    forms = [ARITHMETIC[node.op_type](form, numbers, is_left) for form in source.forms]
    own = tuple(form for form in forms if form is not None)
    elements = np.broadcast_to(source.elements, _known_shape(node.outputs[0]))
    return (_Traced(elements, own),) if len(own) == len(forms) else ()


_RULES: Mapping[str, Callable[[ir.Node, _Tensors, int], Sequence[_Traced]]] = {
    **dict.fromkeys(
        (
            "Expand", "Flatten", "Gather", "Identity", "Reshape", "Slice", "Split", "Squeeze",
            "Tile", "Transpose", "Unsqueeze",
        ),
        _moved,
    ),
    **dict.fromkeys(ARITHMETIC, _calculated),
    "Cast": _cast,
    "Concat": _concat,
    "Where": _chosen,
}  # fmt: skip


def _parts(node: ir.Node, tensors: _Tensors) -> tuple[_Traced | None, list[np.ndarray | None]]:
    """Split the inputs of a node into the one traced tensor and the values of the others.

    There is no traced tensor if another input is not constant.
    """
    traced = [value for value in node.inputs if value in tensors]
    others = [value for value in node.inputs if value not in tensors]
    stored = [None if value is None else value.const_value for value in others]
    constants = [None if one is None else one.numpy() for one in stored]
    missing = any(
        value is not None and one is None for value, one in zip(others, stored, strict=True)
    )
    source = tensors[traced[0]] if len(traced) == 1 and not missing else None
    return source, constants


def _is_small(value: ir.Value) -> bool:
    shape = _shape(value)
    return shape is not None and math.prod(shape) <= MOST_ELEMENTS


def _known_shape(value: ir.Value) -> tuple[int, ...]:
    shape = _shape(value)
    assert shape is not None, "asked before"
    return shape


def _shape(value: ir.Value | None) -> tuple[int, ...] | None:
    """Return the static shape of a value; None without one."""
    if value is None or value.shape is None:
        return None
    sizes = tuple(size for size in value.shape if isinstance(size, int))
    return sizes if len(sizes) == len(value.shape) else None
