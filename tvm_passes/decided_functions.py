"""Forms of functions at stage 2: decided sub-graphs, and layout transforms between them."""

from __future__ import annotations

from collections.abc import Sequence

from tvm import relax

from tvm_passes.decision import Decision, parse_placed_unit
from tvm_passes.ir import Expr, main_bindings, static_shape, substitute, with_device_index
from tvm_passes.layout import (
    PLAIN,
    index_map,
    order_of,
    parts_of,
    physical_dtype,
    physical_shape,
    storage_of,
)
from tvm_passes.ports import port_layouts, with_ports
from tvm_passes.precisions import element_storage


def _physical_type(ty: relax.TensorType, layout: str) -> relax.TensorType:
    """Return the type in memory of a tensor."""
    shape = physical_shape(static_shape(ty), layout)
    return relax.TensorType(shape, physical_dtype(str(ty.dtype), layout))


def _emit_transform(
    builder: relax.BlockBuilder, value: Expr, source: str, destination: str
) -> Expr:
    """Emit the layout transform of `value` from `source` to `destination`."""
    if source == destination:
        return value
    converts = storage_of(source) != storage_of(destination) or parts_of(source) > 1
    if converts:
        value = _emit_values(builder, value, storage_of(source))
    if order_of(source) != order_of(destination):
        move = index_map(order_of(source), order_of(destination))
        value = builder.emit(relax.op.layout_transform(value, move))
    return _emit_stored(builder, value, storage_of(destination)) if converts else value


def _emit_values(builder: relax.BlockBuilder, value: Expr, storage: str) -> Expr:
    """Emit the float32 values of a tensor in `storage`."""
    if not storage:
        return value
    parts = element_storage(storage).parts
    if parts == 1:
        return builder.emit(relax.op.astype(value, "float32"))
    each = [relax.op.take(value, relax.const(part, "int64"), axis=-2) for part in range(parts)]
    total, *others = (builder.emit(relax.op.astype(builder.emit(part), "float32")) for part in each)
    for other in others:
        total = builder.emit(relax.op.add(total, other))
    return total


def _emit_stored(builder: relax.BlockBuilder, value: Expr, storage: str) -> Expr:
    """Emit a tensor of float32 values in `storage`."""
    if not storage:
        return value
    form = element_storage(storage)
    parts = [builder.emit(relax.op.astype(value, form.dtype))]
    while len(parts) < form.parts:
        rounded = builder.emit(relax.op.astype(parts[-1], "float32"))
        value = builder.emit(relax.op.subtract(value, rounded))
        parts.append(builder.emit(relax.op.astype(value, form.dtype)))
    return parts[0] if form.parts == 1 else builder.emit(relax.op.stack(parts, axis=-2))


def decide_function(function: relax.Function, decision: Decision) -> relax.Function:
    """Return the stage-2 form of a function: physical parameters, the decision as attributes.

    Its body is the body of stage 1, between transforms from and to the physical tensors.
    :func:`tvm_passes.ports.read_ports` separates the two again.
    """
    inputs, outputs = port_layouts(function, decision)
    count = len(inputs)
    params = [
        relax.Var(param.name, _physical_type(param.ty, layout))
        for param, layout in zip(function.params[:count], inputs, strict=True)
    ] + [relax.Var(param.name, param.ty) for param in function.params[count:]]
    builder = relax.BlockBuilder()
    with builder.function("subgraph", params):
        with builder.dataflow():
            mapping: dict[Expr, Expr] = dict(zip(function.params, params, strict=True))
            for param, layout in zip(function.params[:count], inputs, strict=True):
                mapping[param] = _emit_transform(builder, mapping[param], layout, PLAIN)
            for binding in main_bindings(function):
                mapping[binding.var] = builder.emit(substitute(binding.value, mapping.get))
            logical = result = mapping[function.body.body]
            if outputs != (PLAIN,) * len(outputs):
                result = _transform_results(builder, result, outputs)
            result = builder.emit_output(result)
        builder.emit_func_output(result)
    decided = builder.get()["subgraph"].without_attr("global_symbol")
    values = [mapping[param] for param in function.params[:count]]
    decided = with_ports(decided, values, logical)
    # TVM's attributes do not iterate.
    attrs = {key: function.attrs[key] for key in function.attrs.keys()}  # noqa: SIM118
    decided = decided.with_attrs(
        {
            **attrs,
            "layoutsel.unit": decision.unit,
            "layoutsel.layout": decision.layout,
            "layoutsel.precision": decision.precision,
            "layoutsel.algorithm": decision.algorithm,
            "layoutsel.in_layouts": list(inputs),
            "layoutsel.out_layouts": list(outputs),
        }
    )
    return with_device_index(decided, decision.index)


def _transform_results(builder: relax.BlockBuilder, result: Expr, layouts: Sequence[str]) -> Expr:
    """Emit the transforms of the results to their layouts."""
    if isinstance(result.ty, relax.TensorType):
        return _emit_transform(builder, result, PLAIN, layouts[0])
    fields = [
        _emit_transform(builder, builder.emit(relax.TupleGetItem(result, index)), PLAIN, layout)
        for index, layout in enumerate(layouts)
    ]
    return relax.Tuple(fields)


def transform_function(
    logical: relax.TensorType, source: str, destination: str, where: str
) -> relax.Function:
    """Make the function that transforms the layout of a tensor on the placed unit `where`.

    Parameters
    ----------
    logical
        Logical type of the tensor.
    source, destination
        Layouts.
    """
    unit, device = parse_placed_unit(where)
    param = relax.Var("x", _physical_type(logical, source))
    builder = relax.BlockBuilder()
    with builder.function("transform", [param]):
        with builder.dataflow():
            result = builder.emit_output(_emit_transform(builder, param, source, destination))
        builder.emit_func_output(result)
    function = builder.get()["transform"].without_attr("global_symbol")
    function = function.with_attrs(
        {
            "layoutsel.transform": f"{source}>{destination}",
            "layoutsel.unit": unit,
            "layoutsel.in_layouts": [source],
            "layoutsel.out_layouts": [destination],
        }
    )
    return with_device_index(function, device.index)
