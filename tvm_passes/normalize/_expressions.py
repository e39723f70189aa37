"""Helpers of the normalisation passes: constants as numpy, static shapes, resolved variables."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

from tvm import relax
from tvm.ir import Call, IRModule
from tvm.relax.expr_functor import PyExprMutator

from tvm_passes.arrays import array_of
from tvm_passes.ir import Constant, Expr, Var, leaves

MutatorFactory = Callable[[IRModule, relax.Function], PyExprMutator]
"""Creates the mutator of one function of a module."""


def scalar_of(expr: Expr | None) -> float | None:
    """Return the value of a constant with a single element; None for anything else."""
    if not isinstance(expr, Constant):
        return None
    array = array_of(expr)
    return float(array.reshape(-1)[0]) if array.size == 1 else None


def shape_of(expr: Expr) -> tuple[int, ...] | None:
    """Return the shape of a tensor as integers; None if it is unknown or symbolic."""
    ty = expr.ty
    if not isinstance(ty, relax.TensorType) or not isinstance(ty.shape, relax.ShapeExpr):
        return None
    try:
        return tuple(int(dim) for dim in ty.shape.values)
    except TypeError:
        return None


def dtype_of(expr: Expr) -> str:
    """Return the element type of a tensor, such as ``float32``; empty if it is unknown."""
    return str(expr.ty.dtype) if isinstance(expr.ty, relax.TensorType) and expr.ty.dtype else ""


def integers(expr: Expr) -> tuple[int, ...] | None:
    """Return the integers of a shape expression or of a tuple; None if one is symbolic."""
    values = expr.values if isinstance(expr, relax.ShapeExpr) else getattr(expr, "fields", None)
    try:
        return None if values is None else tuple(int(value) for value in values)
    except TypeError:
        return None


def use_counts(function: relax.Function) -> Counter[Var]:
    """Count the reads of each variable of a function, including reads by its result."""
    counts: Counter[Var] = Counter()
    for block in function.body.blocks:
        for binding in block.bindings:
            counts.update(leaf for leaf in leaves(binding.value) if isinstance(leaf, Var))
    counts.update(leaf for leaf in leaves(function.body.body) if isinstance(leaf, Var))
    return counts


def resolved(mutator: PyExprMutator, expr: Expr) -> Expr:
    """Follow a chain of variables to its value; the last variable if its value is unknown."""
    while isinstance(expr, Var):
        value = mutator.lookup_binding(expr)
        if value is None:
            return expr
        expr = value
    return expr


def call_of(mutator: PyExprMutator, expr: Expr, name: str) -> Call | None:
    """Return the call of operator ``relax.<name>`` that `expr` is bound to, or None."""
    value = resolved(mutator, expr)
    if isinstance(value, Call) and getattr(value.op, "name", "") == f"relax.{name}":
        return value
    return None


def rewrite_functions(mod: IRModule, make: MutatorFactory) -> IRModule:
    """Run a mutator over each Relax function of `mod`; returns `mod` itself if nothing changes.

    The result keeps the attributes and the devices of `mod`.
    """
    updated = {}
    for global_var, function in mod.functions_items():
        if isinstance(function, relax.Function):
            rewritten = make(mod, function).visit_expr(function)
            if not rewritten.same_as(function):
                updated[global_var] = rewritten
    if not updated:
        return mod
    result = mod.clone()
    for global_var, function in updated.items():
        result.update_func(global_var, function)
    return result


def normalized_axis(axis: int, ndim: int) -> int:
    """Return `axis` counted from the front."""
    return axis + ndim if axis < 0 else axis


def is_per_channel(shape: Sequence[int], axis: int, ndim: int) -> bool:
    """Return whether a constant of `shape` varies at most along `axis` of a rank-`ndim` tensor."""
    if len(shape) > ndim:
        return False
    offset = ndim - len(shape)
    return all(size == 1 or offset + position == axis for position, size in enumerate(shape))
