"""Recognition of small formulas of scalars and one tensor in the operators that compute them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from tvm.ir import Call
from tvm.relax.expr_functor import PyExprMutator

from tvm_passes.ir import Expr, Var, op_name
from tvm_passes.normalize._expressions import resolved, scalar_of

TOLERANCE = 1e-5
"""Relative tolerance; exporters print constants such as sqrt(2 / pi) with six digits."""

_MAX_DEGREE = 3
"""Maximum degree of a recognised polynomial."""

Polynomial: TypeAlias = Mapping[int, float]
"""Coefficients by degree."""


def close(a: float, b: float) -> bool:
    """Return whether two constants of a formula agree in the digits that exporters print."""
    return math.isclose(a, b, rel_tol=TOLERANCE, abs_tol=1e-9)


@dataclass(frozen=True, kw_only=True)
class Linear:
    """Linear form ``offset + slope * core``."""

    offset: float
    """Constant term."""
    slope: float
    """Constant factor."""
    core: Expr
    """Expression that is scaled and shifted."""


def call_named(mutator: PyExprMutator, expr: Expr, *names: str) -> Call | None:
    """Return the call that `expr` is bound to, if its operator is one of `names`."""
    value = resolved(mutator, expr)
    return value if isinstance(value, Call) and op_name(value) in names else None


def scaled(mutator: PyExprMutator, expr: Expr) -> Linear:
    """Split constant factors off `expr`."""
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
    """Split constant factors and one constant term off `expr`."""
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


def polynomial(mutator: PyExprMutator, expr: Expr, base: Expr) -> Polynomial | None:
    """Return the coefficients by degree of `expr` as a polynomial in `base`, or None."""
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


def _combine(mutator: PyExprMutator, call: Call, base: Expr) -> Polynomial | None:
    if op_name(call) == "square":
        inner = polynomial(mutator, call.args[0], base)
        return None if inner is None else _product(inner, inner)
    combine = _COMBINERS.get(op_name(call))
    if combine is None:
        return None
    left, right = (polynomial(mutator, argument, base) for argument in call.args)
    return None if left is None or right is None else combine(left, right)


def _sum(left: Polynomial, right: Polynomial) -> Polynomial | None:
    return {degree: left.get(degree, 0.0) + right.get(degree, 0.0) for degree in {*left, *right}}


def _difference(left: Polynomial, right: Polynomial) -> Polynomial | None:
    return _sum(left, {degree: -factor for degree, factor in right.items()})


def _product(left: Polynomial, right: Polynomial) -> Polynomial | None:
    result: dict[int, float] = {}
    for a, x in left.items():
        for b, y in right.items():
            result[a + b] = result.get(a + b, 0.0) + x * y
    return result if max(result) <= _MAX_DEGREE else None


def _quotient(left: Polynomial, right: Polynomial) -> Polynomial | None:
    if set(right) != {0} or right[0] == 0:
        return None
    return {degree: factor / right[0] for degree, factor in left.items()}


def _power(base: Polynomial, exponent: Polynomial) -> Polynomial | None:
    if set(exponent) != {0} or exponent[0] not in (1.0, 2.0, 3.0):
        return None
    result: Polynomial | None = base
    for _ in range(int(exponent[0]) - 1):
        result = None if result is None else _product(result, base)
    return result


_COMBINERS: Mapping[str, Callable[[Polynomial, Polynomial], Polynomial | None]] = {
    "add": _sum,
    "divide": _quotient,
    "multiply": _product,
    "power": _power,
    "subtract": _difference,
}
"""Combination of two polynomials by Relax operator."""


def is_polynomial(mutator: PyExprMutator, expr: Expr, base: Expr, expected: Polynomial) -> bool:
    """Return whether `expr` is the polynomial of `base` with the `expected` coefficients."""
    found = polynomial(mutator, expr, base)
    return found is not None and all(
        close(found.get(degree, 0.0), expected.get(degree, 0.0)) for degree in {*found, *expected}
    )


def same_value(mutator: PyExprMutator, left: Expr, right: Expr) -> bool:
    """Return whether two expressions are the same variable, or bound to the same expression."""
    if left.same_as(right):
        return True
    return (
        isinstance(left, Var)
        and isinstance(right, Var)
        and resolved(mutator, left).same_as(resolved(mutator, right))
    )
