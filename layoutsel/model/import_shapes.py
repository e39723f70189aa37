"""Static shapes for every input of an ONNX model, and an order for results without one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from onnx import AttributeProto, GraphProto, ModelProto, TensorProto, ValueInfoProto

from layoutsel.errors import InvalidShape, UnsupportedModel
from layoutsel.model.import_facts import REAL_NUMBERS

Shapes = Mapping[str, tuple[int, ...]]
"""Shapes by the name of the input."""


def needs_fixing(model: ModelProto) -> bool:
    """True if :func:`fix_inputs` or :func:`fix_orders` would change `model`."""
    graph = model.graph
    stored = {tensor.name for tensor in graph.initializer}
    named = any(value.name in stored or None in _dims(value) for value in graph.input)
    return named or any(True for _ in _open_orders(model))


def _open_orders(model: ModelProto) -> Iterator[AttributeProto]:
    """Yield the attribute ``sorted`` of each TopK without an order of its results."""
    for nodes in (model.graph.node, *(function.node for function in model.functions)):
        for node in nodes:
            if node.op_type == "TopK":
                yield from (a for a in node.attribute if a.name == "sorted" and a.i == 0)


def fix_orders(model: ModelProto) -> None:
    """Make each TopK sort its results, in place: all engines then agree on them."""
    for attribute in _open_orders(model):
        attribute.i = 1


def fix_inputs(model: ModelProto, shapes: Shapes | None) -> None:
    """Remove initializers from the inputs of `model` and fix open dimensions, in place.

    A symbolic dimension that `shapes` gives for one input holds for all inputs that name it.

    Raises
    ------
    InvalidShape
        If `shapes` names an unknown input, has the wrong rank, contradicts the model, or leaves a
        dimension open.
    UnsupportedModel
        If an input is not a tensor, or a tensor of strings.
    """
    graph = model.graph
    _drop_initializers(graph)
    inputs = {value.name: value for value in graph.input}
    for value in inputs.values():
        _check_type(value)
    given = dict(shapes or {})
    for name, shape in given.items():
        if name not in inputs:
            raise InvalidShape(
                f"--shape {name}: the model has no such input; expected one of {', '.join(inputs)}"
            )
        _apply(inputs[name], tuple(shape))
    symbols = _symbols(model, given)
    changed = bool(given)
    for value in inputs.values():
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param in symbols and not dim.HasField("dim_value"):
                dim.dim_value = symbols[dim.dim_param]
                changed = True
        _check_static(value)
    if changed:
        graph.ClearField("value_info")


def _drop_initializers(graph: GraphProto) -> None:
    stored = {tensor.name for tensor in graph.initializer}
    real = [value for value in graph.input if value.name not in stored]
    if len(real) != len(graph.input):
        kept = [ValueInfoProto.FromString(value.SerializeToString()) for value in real]
        del graph.input[:]
        graph.input.extend(kept)


def _check_type(value: ValueInfoProto) -> None:
    kind = value.type.WhichOneof("value")
    if kind != "tensor_type":
        raise UnsupportedModel(f"input {value.name!r} is a {kind}; expected a tensor")
    if value.type.tensor_type.elem_type == TensorProto.STRING:
        raise UnsupportedModel(
            f"input {value.name!r} holds strings; expected numbers. Tokenise before the model"
        )

    if value.type.tensor_type.elem_type not in REAL_NUMBERS:
        kind = value.type.tensor_type.elem_type
        raise UnsupportedModel(
            f"input {value.name!r} has element type {kind} ({_kind_name(kind)}); "
            f"expected real numbers of 8 to 64 bits, such as 1 (float)"
        )


def _kind_name(kind: int) -> str:
    known = kind in TensorProto.DataType.values()
    return TensorProto.DataType.Name(kind).lower() if known else "unknown"


def _dims(value: ValueInfoProto) -> list[int | None]:
    """List the dimensions of `value`; None for an open one."""
    return [
        dim.dim_value if dim.HasField("dim_value") and dim.dim_value > 0 else None
        for dim in value.type.tensor_type.shape.dim
    ]


def _text(value: ValueInfoProto) -> str:
    dims = value.type.tensor_type.shape.dim
    return f"({', '.join(dim.dim_param or str(dim.dim_value or '?') for dim in dims)})"


def _example(value: ValueInfoProto) -> str:
    """Write a command-line option for the shape of `value`, with 1 for each open dimension."""
    return f"--shape {value.name}={','.join(str(dim or 1) for dim in _dims(value))}"


def _apply(value: ValueInfoProto, shape: tuple[int, ...]) -> None:
    tensor = value.type.tensor_type
    if any(size < 1 for size in shape):
        raise InvalidShape(f"--shape {value.name}: got {shape}; expected positive dimensions")
    if not tensor.HasField("shape"):
        for _size in shape:
            tensor.shape.dim.add()
    declared = _dims(value)
    if len(declared) != len(shape):
        raise InvalidShape(
            f"--shape {value.name}: got {len(shape)} dimensions {shape}; "
            f"expected {len(declared)}: {_text(value)}"
        )
    for position, (have, want) in enumerate(zip(declared, shape, strict=True)):
        if have is not None and have != want:
            raise InvalidShape(
                f"--shape {value.name}: got {want} for dimension {position}, which the model "
                f"fixes at {have}: {_text(value)}. Export it with that dimension dynamic"
            )


def _symbols(model: ModelProto, given: Shapes) -> dict[str, int]:
    """Set the given dimensions, and return the values of symbolic ones that they imply."""
    symbols: dict[str, int] = {}
    for value in model.graph.input:
        for dim, size in zip(
            value.type.tensor_type.shape.dim, given.get(value.name, ()), strict=False
        ):
            if not dim.HasField("dim_value") or not dim.dim_value:
                if dim.dim_param and symbols.setdefault(dim.dim_param, size) != size:
                    raise InvalidShape(
                        f"--shape {value.name}: got {size} for dimension {dim.dim_param!r}, which "
                        f"another input gives as {symbols[dim.dim_param]}; expected the same"
                    )
                dim.dim_value = size
    return symbols


def _check_static(value: ValueInfoProto) -> None:
    if not value.type.tensor_type.HasField("shape"):
        raise InvalidShape(
            f"input {value.name!r} has no shape in the model; "
            f"--shape {value.name}=1,3,224,224 gives it"
        )
    if None in _dims(value):
        raise InvalidShape(
            f"input {value.name!r} has dynamic dimensions: got {_text(value)}; "
            f"expected every one fixed. {_example(value)} gives them"
        )
