"""Typed helpers over Relax's Python API, which keep passes as short as their rewrites."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import tvm
import tvm_ffi
from tvm import relax
from tvm.ir import Call, GlobalVar, Op, Tuple, TupleGetItem
from tvm.ir.expr import GenericConst as Constant
from tvm.relax import Expr, Var

from tvm_passes.arrays import constant_of
from tvm_passes.decision import Decision
from tvm_passes.errors import ERRORS, Decline, UnsupportedModel

__all__ = [
    "ENTRY",
    "Constant",
    "Expr",
    "ModulePass",
    "Var",
    "constant_of",
    "decline_of",
    "device_index",
    "entry_points",
    "is_tensor",
    "leaves",
    "main_bindings",
    "op_name",
    "static_shape",
    "substitute",
    "tensor_types",
    "with_device_index",
]

DEVICE_INDEX = "layoutsel.device_index"
"""Attribute of functions for other devices than the first of their kind: the device's index."""
ENTRY = "layoutsel.entry"
"""Attribute of functions that are called from outside, in a module of several: index from 0."""

for _error in ERRORS:
    tvm_ffi.register_error(_error.__name__, _error)


def op_name(expr: Expr) -> str:
    """Return the operator of a call without ``relax.``, or the callee's name; else ''."""
    if not isinstance(expr, Call):
        return ""
    if isinstance(expr.op, Op):
        return expr.op.name.removeprefix("relax.")
    if isinstance(expr.op, GlobalVar):
        return expr.op.name_hint
    return type(expr.op).__name__


def is_tensor(expr: Expr) -> bool:
    """Return whether `expr` is a single tensor."""
    return isinstance(expr.ty, relax.TensorType)


def tensor_types(ty: relax.Type) -> list[relax.TensorType]:
    """Return the tensor types in `ty`, with tuples flattened."""
    if isinstance(ty, relax.TensorType):
        return [ty]
    if isinstance(ty, relax.TupleType):
        return [leaf for field in ty.fields for leaf in tensor_types(field)]
    return []


def static_shape(ty: relax.Type) -> tuple[int, ...]:
    """Return the shape of the tensor type `ty` as integers.

    Raises
    ------
    UnsupportedModel
        If it is no tensor type, or if the shape is unknown or has a symbolic dimension.
    """
    if not isinstance(ty, relax.TensorType):
        raise UnsupportedModel(f"a value of type {ty} is no tensor: compute shapes beforehand")
    if not isinstance(ty.shape, relax.ShapeExpr):
        raise UnsupportedModel(f"a tensor of type {ty} has no known shape: give every dimension")
    try:
        return tuple(int(dim) for dim in ty.shape.values)
    except TypeError:
        raise UnsupportedModel(
            f"a tensor of shape {tuple(ty.shape.values)} has a symbolic dimension: give it a value"
        ) from None


def leaves(expr: Expr) -> Iterator[Expr]:
    """Yield the variables, constants and shapes in `expr`, including those in calls and tuples."""
    if isinstance(expr, Call):
        if isinstance(expr.op, Var):
            yield expr.op
        for argument in expr.args:
            yield from leaves(argument)
    elif isinstance(expr, Tuple):
        for field in expr.fields:
            yield from leaves(field)
    elif isinstance(expr, TupleGetItem):
        yield from leaves(expr.tuple_value)
    else:
        yield expr


def substitute(expr: Expr, replace: Callable[[Expr], Expr | None]) -> Expr:
    """Return `expr` with each leaf replaced for which `replace` returns an expression."""
    if isinstance(expr, Call):
        op = replace(expr.op) if isinstance(expr.op, Var) else None
        arguments = [substitute(argument, replace) for argument in expr.args]
        return Call(op if op is not None else expr.op, arguments, expr.attrs, expr.ty_args)
    if isinstance(expr, Tuple):
        return Tuple([substitute(field, replace) for field in expr.fields])
    if isinstance(expr, TupleGetItem):
        return TupleGetItem(substitute(expr.tuple_value, replace), expr.index)
    replacement = replace(expr)
    return expr if replacement is None else replacement


def entry_points(module: tvm.IRModule) -> list[str]:
    """Return the names of the functions that are called from outside, in order.

    These are `main`, or one for each stage.
    """
    entries = {
        gv.name_hint: int(function.attrs[ENTRY])
        for gv, function in module.functions.items()
        if function.attrs and ENTRY in function.attrs
    }
    return sorted(entries, key=entries.__getitem__) or ["main"]


def main_bindings(function: relax.Function) -> list[relax.VarBinding]:
    """Return the bindings of a function with a straight-line body.

    Raises
    ------
    UnsupportedModel
        If the body contains control flow or a match-cast.
    """
    bindings = [binding for block in function.body.blocks for binding in block.bindings]
    for binding in bindings:
        if not isinstance(binding, relax.VarBinding) or isinstance(binding.value, relax.If):
            raise UnsupportedModel(
                f"binding {binding.var.name} is {type(binding).__name__}: expected a straight-line "
                f"function without control flow; unroll or remove it before importing"
            )
    return bindings


def results(main: relax.Function) -> list[Expr]:
    """Return the tensors that `main` returns, in order."""
    values = {binding.var: binding.value for binding in main_bindings(main)}
    result = main.body.body
    while isinstance(values.get(result), relax.Var):
        result = values[result]
    tupled = values.get(result, result)
    return list(tupled.fields) if isinstance(tupled, relax.Tuple) else [result]


def decline_of(
    function: relax.Function, decision: Decision, obstacle: tuple[str, str, str]
) -> Decline:
    """Make the decline of a decision from an obstacle: operator in the way, got, expected."""
    operator, got, expected = obstacle
    return Decline(
        subgraph=str(function.attrs["layoutsel.subgraph"]),
        operator=operator,
        decision=str(decision),
        got=got,
        expected=expected,
    )


class ModulePass:
    """Base of the passes for type checkers: ``tvm.transform.module_pass`` makes a pass callable."""

    if TYPE_CHECKING:

        def __call__(self, module: tvm.IRModule) -> tvm.IRModule:
            """Run the pass on `module`."""
            ...


def device_index(function: tvm.ir.BaseFunc) -> int:
    """Return the index of a function's device among those of its kind."""
    return int(function.attrs.get(DEVICE_INDEX, 0)) if function.attrs else 0


def with_device_index(function: tvm.ir.BaseFunc, index: int) -> tvm.ir.BaseFunc:
    """Record the device of a function; the first one of a kind needs no record."""
    return function.with_attr(DEVICE_INDEX, index) if index else function
