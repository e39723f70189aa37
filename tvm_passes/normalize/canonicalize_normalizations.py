"""Recognition of layer normalisation and softmax that exporters decompose."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping

import numpy as np
import tvm
from tvm import relax
from tvm.ir import Call, IRModule
from tvm.relax.expr_functor import PyExprMutator, mutator

from tvm_passes.arrays import array_of
from tvm_passes.ir import Constant, Expr, ModulePass, Var, constant_of, op_name
from tvm_passes.normalize._algebra import call_named, is_polynomial, same_value
from tvm_passes.normalize._expressions import (
    dtype_of,
    normalized_axis,
    resolved,
    rewrite_functions,
    scalar_of,
    shape_of,
    use_counts,
)
from tvm_passes.normalize.norms_to_rows import standardized


def _reduced_axes(call: Call, data: Expr) -> tuple[int, ...] | None:
    """Return the axes of a reduction that keeps its dimensions, or None."""
    keeps = call.attrs.keepdims and call.attrs.axis is not None
    return _plain_axes(call, data) if keeps else None


def _plain_axes(call: Call, data: Expr) -> tuple[int, ...] | None:
    """Return the axes of a reduction, in order; None if the rank is unknown."""
    shape = shape_of(data)
    if shape is None:
        return None
    if call.attrs.axis is None:
        return tuple(range(len(shape)))
    return tuple(sorted(normalized_axis(int(axis), len(shape)) for axis in call.attrs.axis))


def _layer_norm(
    mutator_: PyExprMutator, numerator: Expr, deviation: Expr, root_name: str
) -> Expr | None:
    """Rewrite ``(x - mean(x)) / sqrt(variance(x) + epsilon)`` → ``nn.layer_norm(x, 1, 0)``.

    The variance is ``mean((x - mean(x))²)``, or the operator itself.
    """
    root = call_named(mutator_, deviation, root_name)
    centred = _centred(mutator_, numerator)
    if root is None or centred is None:
        return None
    data, axes = centred
    epsilon = _variance(mutator_, root.args[0], data, axes)
    shape = shape_of(data)
    if epsilon is None or shape is None:
        return None
    if axes != tuple(range(len(shape) - len(axes), len(shape))):
        return standardized(mutator_.builder_.emit, data, axes, epsilon)
    sizes, dtype = shape[-len(axes) :], dtype_of(data)
    gamma, beta = constant_of(np.ones(sizes, dtype)), constant_of(np.zeros(sizes, dtype))
    return relax.op.nn.layer_norm(data, gamma, beta, [-n for n in range(len(axes), 0, -1)], epsilon)


def _centred(mutator_: PyExprMutator, expr: Expr) -> tuple[Expr, tuple[int, ...]] | None:
    """Return (x, axes) of ``x - mean(x, axes)``, or None."""
    difference = call_named(mutator_, expr, "subtract")
    if difference is None:
        return None
    mean = call_named(mutator_, difference.args[1], "mean")
    if mean is None or not same_value(mutator_, mean.args[0], difference.args[0]):
        return None
    axes = _reduced_axes(mean, mean.args[0])
    return None if axes is None else (difference.args[0], axes)


def _variance(
    mutator_: PyExprMutator, expr: Expr, data: Expr, axes: tuple[int, ...]
) -> float | None:
    """Return epsilon of ``mean((data - mean(data))²) + epsilon``; 0 if none is added."""
    if _is_variance(mutator_, expr, data, axes):
        return 0.0
    total = call_named(mutator_, expr, "add")
    if total is None:
        return None
    for value, constant in (tuple(total.args), tuple(reversed(total.args))):
        epsilon = scalar_of(resolved(mutator_, constant))
        if epsilon is not None and _is_variance(mutator_, value, data, axes):
            return epsilon
    return None


def _spelled_variance(mutator_: PyExprMutator, call: Call) -> Expr | None:
    """Rewrite ``mean(x²) - mean(x)²``, which cancels for a large mean → ``variance(x)``."""
    square = call_named(mutator_, call.args[0], "mean")
    if square is None:
        return None
    for factor in _factors(mutator_, call.args[1]):
        mean = call_named(mutator_, factor, "mean")
        if mean is None or not is_polynomial(mutator_, call.args[1], factor, {2: 1.0}):
            continue
        data, keepdims = mean.args[0], bool(mean.attrs.keepdims)
        axes = _plain_axes(mean, data)
        alike = axes == _plain_axes(square, square.args[0]) and keepdims == square.attrs.keepdims
        if axes and alike and is_polynomial(mutator_, square.args[0], data, {2: 1.0}):
            return relax.op.variance(data, list(axes), keepdims=keepdims)
    return None


def _factors(mutator_: PyExprMutator, expr: Expr) -> tuple[Expr, ...]:
    """Return the first operand of a power, square or product."""
    call = call_named(mutator_, expr, "power", "multiply", "square")
    return () if call is None else (call.args[0],)


def _is_variance(mutator_: PyExprMutator, expr: Expr, data: Expr, axes: tuple[int, ...]) -> bool:
    """Return whether `expr` is the variance of `data` over `axes`."""
    mean = call_named(mutator_, expr, "mean", "variance")
    if mean is None or _reduced_axes(mean, mean.args[0]) != axes:
        return False
    if op_name(mean) == "variance":
        return same_value(mutator_, mean.args[0], data)
    square = call_named(mutator_, mean.args[0], "power", "multiply", "square")
    if square is None:
        return False
    base = square.args[0]
    centred = _centred(mutator_, base)
    if centred is None or centred[1] != axes or not same_value(mutator_, centred[0], data):
        return False
    return is_polynomial(mutator_, mean.args[0], base, {2: 1.0})


def _softmax(mutator_: PyExprMutator, call: Call) -> Expr | None:
    """Rewrite ``e / sum(e)`` with ``e = exp(x - max(x))`` → ``nn.softmax(x)``."""
    exponential, divisor = call.args
    exp = call_named(mutator_, exponential, "exp")
    total = call_named(mutator_, divisor, "sum")
    shifted = None if exp is None else call_named(mutator_, exp.args[0], "subtract")
    if total is None or shifted is None or not same_value(mutator_, total.args[0], exponential):
        return None
    most = call_named(mutator_, shifted.args[1], "max")
    data = shifted.args[0]
    if most is None or not same_value(mutator_, most.args[0], data):
        return None
    axes = _reduced_axes(total, exponential)
    if axes is None or len(axes) != 1 or axes != _reduced_axes(most, data):
        return None
    return relax.op.nn.softmax(data, axes[0])


@mutator
class _NormalizationMatcher(PyExprMutator):
    def __init__(self, mod: IRModule, function: relax.Function) -> None:
        super().__init__(mod)
        uses: Counter[Var] = use_counts(function)
        self._read_once = {
            binding.var.name
            for block in function.body.blocks
            for binding in block.bindings
            if uses[binding.var] == 1
        }

    def visit_call_(self, call: Call) -> Expr:
        call = super().visit_call_(call)
        if not isinstance(call, Call):
            return call
        if op_name(call) not in ("add", "divide", "multiply", "subtract"):
            return call
        left, right = call.args
        attempts: Mapping[str, tuple[Callable[[], Expr | None], ...]] = {
            "add": (lambda: self._into_layer_norm(call),),
            "divide": (
                lambda: _layer_norm(self, left, right, "sqrt"),
                lambda: _softmax(self, call),
            ),
            "multiply": (
                lambda: _layer_norm(self, left, right, "rsqrt"),
                lambda: _layer_norm(self, right, left, "rsqrt"),
                lambda: self._into_layer_norm(call),
            ),
            "subtract": (lambda: _spelled_variance(self, call),),
        }
        for attempt in attempts[op_name(call)]:
            found = attempt()
            if found is not None:
                return found
        return call

    def _into_layer_norm(self, call: Call) -> Expr | None:
        """Move a constant factor or term that follows ``nn.layer_norm`` into its parameters."""
        for data, other in (tuple(call.args), tuple(reversed(call.args))):
            norm, value = call_named(self, data, "nn.layer_norm"), resolved(self, other)
            if norm is None or not isinstance(data, Var) or data.name not in self._read_once:
                continue
            gamma, beta = (resolved(self, parameter) for parameter in norm.args[1:3])
            if not all(isinstance(constant, Constant) for constant in (value, gamma, beta)):
                continue
            if array_of(value).shape not in (array_of(gamma).shape, (), (1,)):
                continue
            return self._merged(call, norm, array_of(gamma), array_of(beta), array_of(value))
        return None

    @staticmethod
    def _merged(
        call: Call, norm: Call, gamma: np.ndarray, beta: np.ndarray, value: np.ndarray
    ) -> Expr:
        if op_name(call) == "multiply":
            gamma, beta = gamma * value, beta * value
        else:
            beta = beta + value
        arguments = [norm.args[0], constant_of(gamma), constant_of(beta)]
        return Call(norm.op, arguments, norm.attrs, norm.ty_args, norm.span)


@tvm.transform.module_pass(opt_level=0, name="CanonicalizeNormalizations")
class CanonicalizeNormalizations(ModulePass):
    """Recognise layer normalisation and softmax that exporters decompose.

    Before::

        lv = R.subtract(x, R.mean(x, axis=[-1], keepdims=True))
        lv1 = R.sqrt(R.add(R.mean(R.power(lv, 2), axis=[-1], keepdims=True), epsilon))
        lv2 = R.add(R.multiply(R.divide(lv, lv1), gamma), beta)
        lv3 = R.subtract(R.mean(R.multiply(x, x)), R.multiply(R.mean(x), R.mean(x)))

    After::

        lv2 = R.nn.layer_norm(x, gamma, beta, axes=[-1], epsilon=epsilon)
        lv3 = R.variance(x)

    Requires
        Constants folded (:class:`FoldConstants`).
    Ensures
        Values are equal up to rounding. Unused bindings are left to dead-code elimination.
    """

    def transform_module(self, mod: IRModule, _context: tvm.transform.PassContext) -> IRModule:
        """Rewrite every function of `mod`."""
        return rewrite_functions(mod, _NormalizationMatcher)
