"""Recognition of activation functions that exporters decompose; each gets one form."""

from __future__ import annotations

import math

import tvm
from tvm import relax
from tvm.ir import Call, IRModule
from tvm.relax.expr_functor import PyExprMutator, mutator

from tvm_passes.ir import Expr, ModulePass, op_name
from tvm_passes.normalize._algebra import (
    Linear,
    call_named,
    close,
    is_polynomial,
    linear,
    polynomial,
    scaled,
)
from tvm_passes.normalize._expressions import (
    dtype_of,
    resolved,
    rewrite_functions,
    scalar_of,
    shape_of,
)

_ERF = {1: 1 / math.sqrt(2)}
"""Coefficients of GELU's argument of ``erf``."""
_TANH = {1: math.sqrt(2 / math.pi), 3: 0.044715 * math.sqrt(2 / math.pi)}
"""Coefficients of GELU's argument of ``tanh``."""


def _constant(value: float, like: Expr) -> Expr:
    return relax.const(value, dtype_of(like))


def _bounds(mutator_: PyExprMutator, call: Call) -> tuple[Expr, float, float] | None:
    """Return (value, minimum, maximum) of a ``clip``, ``nn.relu6``, or ``minimum`` and ``maximum``.

    None if a bound is not constant, or if the bounds are crossed.
    """
    name = op_name(call)
    if name == "clip":
        least, most = (float(getattr(bound, "value", math.nan)) for bound in call.args[1:3])
        return None if math.isnan(least) or math.isnan(most) else (call.args[0], least, most)
    if name == "nn.relu6":
        return call.args[0], 0.0, 6.0
    limit = _limit(mutator_, call)
    if limit is None:
        return None
    data, outer = limit
    inner = call_named(mutator_, data, "maximum" if name == "minimum" else "minimum", "nn.relu")
    if inner is None or (op_name(inner) == "nn.relu" and name != "minimum"):
        return None
    bounded = (inner.args[0], 0.0) if op_name(inner) == "nn.relu" else _limit(mutator_, inner)
    if bounded is None:
        return None
    least, most = sorted((outer, bounded[1])) if name == "maximum" else (bounded[1], outer)
    crossed = (name == "minimum" and bounded[1] > outer) or (
        name == "maximum" and bounded[1] < outer
    )
    return None if crossed else (bounded[0], least, most)


def _limit(mutator_: PyExprMutator, call: Call) -> tuple[Expr, float] | None:
    """Return (value, constant) of a minimum or maximum with a constant, or None."""
    if op_name(call) not in ("minimum", "maximum"):
        return None
    for data, other in (tuple(call.args), tuple(reversed(call.args))):
        limit = scalar_of(resolved(mutator_, other))
        if limit is not None and shape_of(data) == shape_of(call):
            return data, limit
    return None


def _hard_sigmoid(mutator_: PyExprMutator, call: Call) -> Expr | None:
    """Rewrite ``clip(x + 3, 0, 6) / 6`` → ``clip(x * (1 / 6) + 0.5, 0, 1)``."""
    outer = scaled(mutator_, call)
    clip = call_named(mutator_, outer.core, "clip", "nn.relu6", "minimum", "maximum")
    bounds = None if clip is None else _bounds(mutator_, clip)
    if bounds is None or bounds[1] != 0.0 or not close(outer.slope * bounds[2], 1.0):
        return None
    return _line_clip(mutator_, linear(mutator_, bounds[0]), bounds[2])


def _line_clip(mutator_: PyExprMutator, line: Linear, most: float) -> Expr:
    """Emit ``clip((offset + slope * core) / most, 0, 1)`` in the canonical form."""
    builder, data = mutator_.builder_, line.core
    product = builder.emit(relax.op.multiply(data, _constant(line.slope / most, data)))
    total = builder.emit(relax.op.add(product, _constant(line.offset / most, data)))
    return relax.op.clip(total, 0.0, 1.0)


def _gated(mutator_: PyExprMutator, call: Call) -> Expr | None:
    """Rewrite an activation of the form ``coefficient * x * gate(x)``."""
    outer = scaled(mutator_, call)
    product = call_named(mutator_, outer.core, "multiply")
    if product is None:
        product, outer = call, Linear(offset=0.0, slope=1.0, core=call)
    if op_name(product) != "multiply":
        return None
    left, right = product.args
    for data, gate in ((left, right), (right, left)):
        found = _gate(mutator_, scaled(mutator_, data), linear(mutator_, gate), outer.slope)
        if found is None:
            whole = Linear(offset=0.0, slope=1.0, core=data)
            found = _gate(mutator_, whole, linear(mutator_, gate), outer.slope)
        if found is not None:
            typed = mutator_.builder_.normalize(found)
            return typed if shape_of(typed) == shape_of(call) else None
    return None


def _gate(mutator_: PyExprMutator, data: Linear, gate: Linear, factor: float) -> Expr | None:
    """Match ``factor * data * gate`` where the gate is a known function of the data."""
    x, factor = data.core, factor * data.slope
    function = call_named(
        mutator_, gate.core, "erf", "tanh", "sigmoid", "clip", "nn.relu6", "minimum", "maximum"
    )
    if function is None:
        return None
    name, argument = op_name(function), function.args[0]
    if name == "sigmoid":
        fits = gate.offset == 0 and close(factor * gate.slope, 1.0)
        return (
            relax.op.nn.silu(x) if fits and is_polynomial(mutator_, argument, x, {1: 1.0}) else None
        )
    if name in ("erf", "tanh"):
        if not close(factor * gate.slope, 0.5) or not close(factor * gate.offset, 0.5):
            return None
        if name == "erf":
            return relax.op.nn.gelu(x) if is_polynomial(mutator_, argument, x, _ERF) else None
        return relax.op.nn.gelu_tanh(x) if is_polynomial(mutator_, argument, x, _TANH) else None
    return _hard_swish(mutator_, x, function, factor * gate.slope if gate.offset == 0 else 0.0)


def _hard_swish(mutator_: PyExprMutator, x: Expr, clip: Call, factor: float) -> Expr | None:
    """Rewrite ``x * clip(x + 3, 0, 6) / 6`` → ``x * clip(x * (1 / 6) + 0.5, 0, 1)``."""
    bounds = _bounds(mutator_, clip)
    if bounds is None or bounds[1] != 0.0 or bounds[2] == 1.0 or not close(factor * bounds[2], 1.0):
        return None
    line = polynomial(mutator_, bounds[0], x)
    if line is None or set(line) - {0, 1}:
        return None
    form = Linear(offset=line.get(0, 0.0), slope=line.get(1, 0.0), core=x)
    return relax.op.multiply(x, mutator_.builder_.emit(_line_clip(mutator_, form, bounds[2])))


def _clip(mutator_: PyExprMutator, call: Call) -> Expr | None:
    """Rewrite ``minimum(maximum(x, a), b)`` → ``clip(x, a, b)``."""
    bounds = _bounds(mutator_, call) if dtype_of(call).startswith("float") else None
    if bounds is None or op_name(call) == "clip":
        return None
    return relax.op.clip(bounds[0], bounds[1], bounds[2])


@mutator
class _ActivationMatcher(PyExprMutator):
    def visit_call_(self, call: Call) -> Expr:
        call = super().visit_call_(call)
        if not isinstance(call, Call):
            return call
        name = op_name(call)
        found = None
        if name in ("multiply", "divide") and shape_of(call) is not None:
            found = _gated(self, call)
            found = _hard_sigmoid(self, call) if found is None else found
        elif name in ("minimum", "maximum", "nn.relu6"):
            found = _clip(self, call)
        return call if found is None else found


@tvm.transform.module_pass(opt_level=0, name="CanonicalizeActivations")
class CanonicalizeActivations(ModulePass):
    """Recognise activation functions that exporters decompose, and write each in one form.

    Before::

        x * sigmoid(x)
        0.5 * x * (1 + erf(x / sqrt(2)))
        0.5 * x * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 * x**3)))
        clip(x + 3, 0, 6) / 6
        x * clip(x + 3, 0, 6) / 6
        minimum(maximum(x, 0), 6)

    After::

        nn.silu(x)
        nn.gelu(x)
        nn.gelu_tanh(x)
        clip(add(multiply(x, 1 / 6), 0.5), 0, 1)
        multiply(x, clip(add(multiply(x, 1 / 6), 0.5), 0, 1))
        clip(x, 0, 6)

    in any order and grouping of the factors.

    Requires
        Scalars folded to constants (:class:`FoldConstants`).
    Ensures
        Values are equal up to rounding. Unused bindings are left to dead-code elimination.
    """

    def transform_module(self, mod: IRModule, _context: tvm.transform.PassContext) -> IRModule:
        """Rewrite every function of `mod`."""
        return rewrite_functions(mod, lambda module, _function: _ActivationMatcher(module))
