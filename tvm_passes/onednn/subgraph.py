"""Emission of a sub-graph function: its operators become primitives of a graph."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import tvm
from tvm import relax
from tvm.ir import Call

from tvm_passes.algorithms import algorithms_of
from tvm_passes.cpu.host import has_bf16, has_vnni, host_target
from tvm_passes.ir import is_tensor, op_name, static_shape, tensor_types
from tvm_passes.layout import PLAIN, SPLIT, physical_dtype, stored
from tvm_passes.onednn import contractions, halves, movement, quantized, reductions
from tvm_passes.onednn.elementwise import BINARY, aligned, as_eltwise, keeping_nan, limited
from tvm_passes.onednn.epilogue import finish
from tvm_passes.onednn.graph import PrimitiveGraph, StoredTensor
from tvm_passes.onednn.lrn import lrn_attributes
from tvm_passes.onednn.orders import ORDERS
from tvm_passes.onednn.scope import INTEGERS, Scope, Unsupported, Value
from tvm_passes.precisions import storage_in

Emitter = Callable[[Scope, relax.VarBinding], None]
"""Emits one binding into a scope."""

EMITTERS: Mapping[str, Emitter] = {
    **contractions.EMITTERS,
    **movement.EMITTERS,
    **quantized.EMITTERS,
    **reductions.EMITTERS,
}
"""Emitter by operator that is more than element-wise; third parties may extend a copy."""

_OF_INTEGERS = frozenset(movement.EMITTERS) | {f"nn.max_pool{rank}d" for rank in (1, 2, 3)}
"""Operators that also take quantised tensors, because their results are elements of their operands.
"""

_Obstacle = tuple[Callable[[tvm.target.Target], bool], str, str]
"""A test of the target, the name of a target that fails it, and the name of one that passes."""

_BF16: _Obstacle = (has_bf16, "a CPU without AVX512_BF16", "one that multiplies bfloat16")
"""Requirement of precisions with bfloat16 products."""
_VNNI: _Obstacle = (has_vnni, "a CPU without VNNI", "one that sums products of bytes exactly")
"""Requirement of precisions with integer products."""

PRECISIONS: Mapping[str, _Obstacle | None] = {
    "f32": None,
    "bf16": _BF16,
    "split-bf16": _BF16,
    "int8": _VNNI,
}
"""Requirement of each precision on the CPU.

``bf16`` has bfloat16 operands and results, with sums in float32. ``split-bf16`` has products of
halves, and computes all else in float32. ``int8`` has the integers of a quantised model, and
float32 between them.
"""


def make_scope(graph: PrimitiveGraph, function: relax.Function, labels: Mapping[str, str]) -> Scope:
    """Create the scope of `function` with its `labels` (subgraph, layout, precision, algorithm).

    Raises
    ------
    Unsupported
        If the plugin lacks the layout, precision or algorithm, or the CPU lacks its instructions.
    """
    precision, algorithm = labels["precision"], labels["algorithm"]
    if labels["layout"] not in ORDERS:
        raise Unsupported("layout", f"layout {labels['layout']}", " or ".join(sorted(ORDERS)))
    if precision not in PRECISIONS:
        raise Unsupported("precision", f"precision {precision}", " or ".join(PRECISIONS))
    known = {entry.name: entry.skips for entry in algorithms_of("onednn")}
    if algorithm not in known:
        raise Unsupported("algorithm", f"algorithm {algorithm}", " or ".join(known))
    anchor = str(function.attrs["layoutsel.anchor"])
    needs = PRECISIONS[precision]
    if needs is not None and not needs[0](host_target()):
        raise Unsupported("precision", *needs[1:])
    if precision == "int8" and not _is_quantized(function):
        raise Unsupported(anchor, "no quantised tensor", "int8 or uint8 operands or results")
    if precision == "split-bf16" and anchor not in halves.PRODUCTS:
        raise Unsupported(anchor, "no product", "a convolution or matmul for split-bf16")
    scope = Scope(graph, function, labels["subgraph"], labels["layout"], operator=anchor)
    scope.quantizes = precision == "int8"
    storage = storage_in(precision)
    scope.splits = storage == SPLIT
    if not scope.splits:
        scope.dtype = physical_dtype("float32", stored(PLAIN, storage))
    scope.implementation = known[algorithm]
    return scope


def _is_quantized(function: relax.Function) -> bool:
    """Return whether an activation or a result of `function` holds integers."""
    count = int(function.attrs["layoutsel.num_activations"])
    types = [param.ty for param in function.params[:count]] + tensor_types(function.ret_ty)
    return any(str(ty.dtype) in INTEGERS for ty in types if isinstance(ty, relax.TensorType))


def emit(scope: Scope, params: Sequence[StoredTensor], anchor: str) -> list[StoredTensor]:
    """Emit the body of a stage-1 or stage-2 sub-graph function; returns the results in its layout.

    The layout transforms of a stage-2 body are omitted: the layouts of `params` already carry them.
    """
    scope.values.update(zip(scope.body.params, params, strict=True))
    inputs = {var: params[index] for var, index in scope.ports.inputs.items()}
    if scope.splits:
        for var in inputs:
            scope.values.pop(var, None)
        halves.receive(scope, inputs)
    else:
        scope.values.update(inputs)
    for binding in scope.bindings:
        scope.operator = op_name(binding.value) or type(binding.value).__name__
        if anchor == "lrn" and scope.operator != "dequantize":
            return [_emit_lrn(scope)]
        if binding.var not in scope.done:
            _emit_binding(scope, binding)
    value = _value(scope, scope.ports.result)
    flat = value if isinstance(value, list) else [value]
    results = [scope.conform(tensor) for tensor in flat]
    return [halves.part(scope, tensor) for tensor in results] if scope.splits else results


def _value(scope: Scope, expr: relax.Expr) -> Value:
    if isinstance(expr, relax.Tuple):
        return [scope.tensor(field) for field in expr.fields]
    return scope.values[expr] if expr in scope.values else scope.tensor(expr)


def _emit_binding(scope: Scope, binding: relax.VarBinding) -> None:
    value = binding.value
    if isinstance(value, relax.TupleGetItem):
        fields = scope.values[value.tuple_value]
        assert isinstance(fields, list)
        scope.values[binding.var] = fields[value.index]
        return
    if not isinstance(value, Call):
        scope.values[binding.var] = _value(scope, value)
        return
    _check_types(scope, binding)
    if scope.operator in EMITTERS:
        EMITTERS[scope.operator](scope, binding)
    else:
        _emit_elementwise(scope, binding)


def _check_types(scope: Scope, binding: relax.VarBinding) -> None:
    """Set the scope's element type to that of the result; raises if no primitive has it."""
    allowed = {"float32"}
    if scope.quantizes and (scope.operator == "quantize" or scope.operator in _OF_INTEGERS):
        allowed |= INTEGERS
    for ty in tensor_types(binding.var.ty):
        scope.element = str(ty.dtype)
        if scope.element not in allowed:
            raise scope.fail(f"a result of type {ty.dtype}", "float32")


def _emit_elementwise(scope: Scope, binding: relax.VarBinding) -> None:
    if not is_tensor(binding.var):
        raise scope.fail("several results", "one")
    shape = static_shape(binding.var.ty)
    match = as_eltwise(binding.value)
    if match is not None:
        operand, function = match
        attrs = {
            "algorithm": function.algorithm,
            "alpha": function.alpha,
            "beta": function.beta,
        }
        source = scope.activation(operand)
        keeping = keeping_nan(scope, function, source)
        node = keeping or scope.node("eltwise", [source], scope.result(shape), attrs)
        finish(scope, binding.var, node)
        return
    if scope.operator not in BINARY:
        raise scope.fail("an operator without a oneDNN primitive", "one of its operators")
    operands = [aligned(scope, argument, len(shape)) for argument in binding.value.args]
    if operands[0].shape != shape and operands[1].shape == shape and scope.operator in _SWAPPABLE:
        operands.reverse()
    algorithm = BINARY[scope.operator]
    if algorithm in ("max", "min"):
        if operands[1].storage.kind not in ("const", "weight"):
            raise scope.fail(
                "two tensors, of which NaN of one is lost", "a constant: the unit cpu takes others"
            )
        finish(scope, binding.var, limited(scope, algorithm, *operands))
        return
    node = scope.node("binary", operands, scope.result(shape), {"algorithm": algorithm})
    finish(scope, binding.var, node)


_SWAPPABLE = frozenset({"add", "multiply", "maximum", "minimum"})
"""Operators of two operands that may be exchanged."""


def _emit_lrn(scope: Scope) -> StoredTensor:
    scope.operator = "lrn"
    operand, attrs = lrn_attributes(scope)
    source = scope.activation(operand)
    result = scope.result(source.shape)
    scope.append("lrn", [source], result, attrs)
    return result
