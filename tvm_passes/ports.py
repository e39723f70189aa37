"""Ports of a sub-graph: the layouts of its boundary tensors, and its operators between them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tvm import relax
from tvm.ir import Call

from tvm_passes.decision import Decision
from tvm_passes.ir import Expr, Var, main_bindings, op_name, static_shape, tensor_types
from tvm_passes.layout import PLAIN, order_of, storage_of, stored, tensor_layout
from tvm_passes.precisions import storage_in

_CONVOLUTION = "nn.conv"
"""Prefix of convolution operators."""
_INPUTS, _RESULT = "layoutsel.inputs", "layoutsel.result"
"""Attributes of a stage-2 function that record its ports."""


def activation_types(function: relax.Function) -> list[relax.TensorType]:
    """Return the types of a sub-graph function's activation parameters."""
    count = int(function.attrs["layoutsel.num_activations"])
    return [param.ty for param in function.params[:count]]


def port_layouts(
    function: relax.Function, decision: Decision
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the layouts of a stage-1 sub-graph's activations and results under `decision`."""
    layout = decided_layout(decision)
    filters = _filters(function)
    inputs = tuple(
        port_layout(ty, stored(PLAIN, storage_of(layout)) if index in filters else layout)
        for index, ty in enumerate(activation_types(function))
    )
    return inputs, tuple(port_layout(ty, layout) for ty in tensor_types(function.ret_ty))


def _filters(function: relax.Function) -> frozenset[int]:
    """Return the activations that are only filters of a convolution, and therefore stay plain."""
    if not str(function.attrs["layoutsel.anchor"]).startswith(_CONVOLUTION):
        return frozenset()
    reads = [
        (arg, op_name(binding.value).startswith(_CONVOLUTION) and place == 1)
        for binding in main_bindings(function)
        if isinstance(binding.value, Call)
        for place, arg in enumerate(binding.value.args)
    ]
    as_filters = {arg for arg, is_filter in reads if is_filter}
    otherwise = {arg for arg, is_filter in reads if not is_filter}
    count = int(function.attrs["layoutsel.num_activations"])
    params = enumerate(function.params[:count])
    return frozenset(i for i, param in params if param in as_filters and param not in otherwise)


def decided_layouts(function: relax.Function) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the layouts of a stage-2 function's activations and results."""
    inputs, outputs = (function.attrs[f"layoutsel.{key}_layouts"] for key in ("in", "out"))
    return tuple(map(str, inputs)), tuple(map(str, outputs))


def decided_layout(decision: Decision) -> str:
    """Return the layout, including storage, that `decision` requests for tensors."""
    return stored(decision.layout, storage_in(decision.precision))


def port_layout(ty: relax.TensorType, layout: str) -> str:
    """Return the layout of a tensor if `layout` is requested; only floats change their storage."""
    wanted = layout if str(ty.dtype) == "float32" else order_of(layout)
    return tensor_layout(static_shape(ty), wanted)


@dataclass(frozen=True, kw_only=True)
class Ports:
    """A sub-graph function without the transforms at its parameters and results."""

    inputs: Mapping[Var, int]
    """Index of each activation, by the variable of its logical value."""
    body: Sequence[relax.VarBinding]
    """Operators in order."""
    result: Expr
    """Result of the operators: a variable or a tuple."""


def with_ports(function: relax.Function, inputs: Sequence[Expr], result: Expr) -> relax.Function:
    """Record the variables of a stage-2 function with the logical activations and result."""
    position = {binding.var: index for index, binding in enumerate(main_bindings(function))}
    return function.with_attrs(
        {
            _INPUTS: [position.get(value, -1) for value in inputs],
            _RESULT: position.get(result, -1),
        }
    )


def read_ports(function: relax.Function) -> Ports:
    """Return the ports of a sub-graph function of stage 1 or 2."""
    bindings = main_bindings(function)
    if _RESULT not in function.attrs:
        count = int(function.attrs["layoutsel.num_activations"])
        inputs = {param: index for index, param in enumerate(function.params[:count])}
        return Ports(inputs=inputs, body=bindings, result=function.body.body)
    places = [int(place) for place in function.attrs[_INPUTS]]
    inputs = {
        bindings[place].var if place >= 0 else function.params[index]: index
        for index, place in enumerate(places)
    }
    end = int(function.attrs[_RESULT])
    if end < 0:
        return Ports(inputs=inputs, body=(), result=function.body.body)
    first = max(places, default=-1) + 1
    return Ports(inputs=inputs, body=bindings[first : end + 1], result=bindings[end].var)
