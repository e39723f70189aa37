"""Read small formulas of scalars and one tensor back from the operators that spell them out."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from tvm.ir import Call
from tvm.relax.expr_functor import PyExprMutator

from tvm_passes.ir import Expr, Var, op_name
from tvm_passes.normalize._expressions import resolved, scalar_of

TOLERANCE = 1e-5
"""Relative; exporters print constants such as sqrt(2 / pi) with six digits."""

_MAX_DEGREE = 3


def close(a: float, b: float) -> bool:
    """Whether two constants of a formula are meant to be the same."""
    return math.isclose(a, b, rel_tol=TOLERANCE, abs_tol=1e-9)


@dataclass(frozen=True, kw_only=True)
class Linear:
    """``offset + slope * core``."""

    offset: float
    slope: float
    core: Expr


def call_named(mutator: PyExprMutator, expr: Expr, *names: str) -> Call | None:
    """Call that `expr` is bound to, if its operator is one of `names`."""
    value = resolved(mutator, expr)
    return value if isinstance(value, Call) and op_name(value) in names else None


def scaled(mutator: PyExprMutator, expr: Expr) -> Linear:
    """`expr` with constant factors taken off."""
    slope = 1.0
    while (call := call_named(mutator, expr, "multiply", "divide")) is not None:
        left, right = call.args
        by_right = scalar_of(resolved(mutator, right))
        by_left = scalar_of(resolved(mutator, left)) if op_name(call) == "multiply" else None
        if by_right is not None and not (op_name(call) == "divide" and by_right == 0):
            slope = slope * by_right if op_name(call) == "multiply" else slope / by_right
            expr = left
        elif by_left is not None:
            slope, expr = slope * by_left, right
        else:
            break
    return Linear(offset=0.0, slope=slope, core=expr)


def linear(mutator: PyExprMutator, expr: Expr) -> Linear:
    """`expr` with constant factors and one constant term taken off."""
    outer = scaled(mutator, expr)
    call = call_named(mutator, outer.core, "add", "subtract")
    if call is None:
        return outer
    left, right = call.args
    sign = 1.0 if op_name(call) == "add" else -1.0
    term = scalar_of(resolved(mutator, right))
    if term is not None:
        inner, offset = scaled(mutator, left), sign * term
    elif (term := scalar_of(resolved(mutator, left))) is not None:
        inner, offset = scaled(mutator, right), term
        inner = Linear(offset=0.0, slope=sign * inner.slope, core=inner.core)
    else:
        return outer
    return Linear(offset=outer.slope * offset, slope=outer.slope * inner.slope, core=inner.core)


def polynomial(mutator: PyExprMutator, expr: Expr, base: Expr) -> Mapping[int, float] | None:
    """Coefficients by degree of `expr` as a polynomial in `base`; None if it is none."""
    if expr.same_as(base):
        return {1: 1.0}
    value = resolved(mutator, expr)
    scalar = scalar_of(value)
    if scalar is not None:
        return {0: scalar}
    if value.same_as(base):
        return {1: 1.0}
    if not isinstance(value, Call):
        return None
    return _combine(mutator, value, base)


def _combine(mutator: PyExprMutator, call: Call, base: Expr) -> Mapping[int, float] | None:
    name = op_name(call)
    if name == "square":
        inner = polynomial(mutator, call.args[0], base)
        return None if inner is None else _product(inner, inner)
    if name not in ("add", "subtract", "multiply", "divide", "power"):
        return None
    left, right = (polynomial(mutator, argument, base) for argument in call.args)
    if left is None or right is None:
        return None
    if name == "add":
        return _sum(left, right, 1.0)
    if name == "subtract":
        return _sum(left, right, -1.0)
    if name == "multiply":
        return _product(left, right)
    if set(right) != {0}:
        return None
    if name == "divide":
        return None if right[0] == 0 else {degree: c / right[0] for degree, c in left.items()}
    return _power(left, right[0])


def _sum(left: Mapping[int, float], right: Mapping[int, float], sign: float) -> Mapping[int, float]:
    return {d: left.get(d, 0.0) + sign * right.get(d, 0.0) for d in {*left, *right}}


def _product(left: Mapping[int, float], right: Mapping[int, float]) -> Mapping[int, float] | None:
    result: dict[int, float] = {}
    for a, x in left.items():
        for b, y in right.items():
            result[a + b] = result.get(a + b, 0.0) + x * y
    return result if max(result) <= _MAX_DEGREE else None


def _power(base: Mapping[int, float], exponent: float) -> Mapping[int, float] | None:
    if exponent not in (1.0, 2.0, 3.0):
        return None
    result: Mapping[int, float] | None = base
    for _ in range(int(exponent) - 1):
        result = None if result is None else _product(result, base)
    return result


def is_polynomial(
    mutator: PyExprMutator, expr: Expr, base: Expr, expected: Mapping[int, float]
) -> bool:
    """Whether `expr` is the polynomial of `base` with the `expected` coefficients."""
    found = polynomial(mutator, expr, base)
    return found is not None and all(
        close(found.get(degree, 0.0), expected.get(degree, 0.0)) for degree in {*found, *expected}
    )


def same_value(mutator: PyExprMutator, left: Expr, right: Expr) -> bool:
    """Whether two expressions are the same variable, or bound to the same expression."""
    if left.same_as(right):
        return True
    return (
        isinstance(left, Var)
        and isinstance(right, Var)
        and resolved(mutator, left).same_as(resolved(mutator, right))
    )
