"""Operators that only select or move values, on quantised integers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import tvm
from tvm import relax
from tvm.ir import Call, IRModule, Tuple
from tvm.relax.expr_functor import PyExprMutator, mutator

from tvm_passes.arrays import array_of
from tvm_passes.ir import Constant, Expr, ModulePass, constant_of, op_name
from tvm_passes.normalize._expressions import (
    call_of,
    dtype_of,
    resolved,
    rewrite_functions,
    scalar_of,
    shape_of,
)
from tvm_passes.normalize.evaluators import dequantized
from tvm_passes.operators import Trait, find_operator, has_trait

Steps = tuple[float, float, str]
"""Scale, zero point and integer type of a tensor quantised as a whole."""


def _uniform(parameter: Expr) -> Expr:
    """Return a scale or zero point with equal elements as a scalar, any other one unchanged."""
    if not isinstance(parameter, Constant):
        return parameter
    array = array_of(parameter)
    same = array.ndim > 0 and array.size > 0 and bool((array == array.flat[0]).all())
    return constant_of(np.asarray(array.flat[0])) if same else parameter


def _steps(call: Call, dtype: str) -> Steps | None:
    """Return scale, zero point and type of a quantisation, if both are scalars."""
    scale, zero_point = scalar_of(call.args[1]), scalar_of(call.args[2])
    return None if scale is None or zero_point is None else (scale, zero_point, dtype)


@mutator
class _Folder(PyExprMutator):
    def visit_call_(self, call: Call) -> Expr:
        call = super().visit_call_(call)
        if not isinstance(call, Call):
            return call
        simpler: Expr | None = None
        traits = find_operator(op_name(call)).traits
        if Trait.MULTIPLIES in traits:
            simpler = self._by_numbers(call)
        elif Trait.BROADCASTS in traits:
            simpler = self._of_numbers(call)
        elif op_name(call) == "permute_dims":
            simpler = self._of_permuted_integers(call)
        elif Trait.QUANTIZES in traits:
            call = self._with_numbers(call)
            simpler = self._on_integers(call) if op_name(call) == "quantize" else None
        return call if simpler is None else simpler

    def _with_numbers(self, call: Call) -> Call:
        """Replace uniform scales and zero points of a call by scalars."""
        parameters = [_uniform(resolved(self, argument)) for argument in call.args[1:]]
        if all(new.same_as(old) for new, old in zip(parameters, call.args[1:], strict=True)):
            return call
        return self._normal(Call(call.op, [call.args[0], *parameters], call.attrs, call.ty_args))

    def _normal(self, call: Call) -> Call:
        return self.builder_.normalize(call)

    def _of_permuted_integers(self, call: Call) -> Expr | None:
        """Move a permutation of dequantised weights to the stored integers."""
        weights = call_of(self, call.args[0], "dequantize")
        integers = None if weights is None else resolved(self, weights.args[0])
        if weights is None or not isinstance(integers, Constant):
            return None
        array = array_of(integers)
        axes = call.attrs.axes
        order = tuple(range(array.ndim))[::-1] if axes is None else tuple(int(a) for a in axes)
        axis = order.index(int(weights.attrs.axis) % array.ndim)
        permuted = constant_of(np.transpose(array, order))
        return relax.op.dequantize(permuted, *weights.args[1:], axis=axis)

    def _by_numbers(self, call: Call) -> Expr | None:
        """Dequantise the constant weights of a product whose other operand holds real numbers."""
        if call_of(self, call.args[0], "dequantize") is not None:
            return None
        return self._of_numbers(call)

    def _of_numbers(self, call: Call) -> Expr | None:
        """Return `call` with its constant operands dequantised; None if it has none."""
        numbers = [self._numbers(argument) for argument in call.args]
        if all(number is None for number in numbers):
            return None
        pairs = zip(numbers, call.args, strict=True)
        arguments = [old if new is None else new for new, old in pairs]
        return self._normal(Call(call.op, arguments, call.attrs, call.ty_args))

    def _numbers(self, value: Expr) -> Constant | None:
        """Return the real numbers of a dequantised constant, or None."""
        call = call_of(self, value, "dequantize")
        arguments = [] if call is None else [resolved(self, argument) for argument in call.args]
        arrays = [array_of(argument) for argument in arguments if isinstance(argument, Constant)]
        if call is None or len(arrays) < len(arguments):
            return None
        array, scale, zero_point = arrays
        return constant_of(dequantized(array, scale, zero_point, int(call.attrs.axis)))

    def _on_integers(self, call: Call) -> Expr | None:
        """Move an operator that commutes with quantisation to the integers, or return None."""
        steps = _steps(call, dtype_of(call))
        inner = resolved(self, call.args[0])
        if steps is None or not isinstance(inner, Call):
            return None
        if not has_trait(op_name(inner), Trait.COMMUTES_WITH_QUANTIZATION):
            return None
        source = resolved(self, inner.args[0])
        fields = list(source.fields) if isinstance(source, Tuple) else [inner.args[0]]
        integers = self._integers(fields, steps)
        if integers is None:
            return None
        operand = Tuple(integers) if isinstance(source, Tuple) else integers[0]
        return self._normal(Call(inner.op, [operand, *inner.args[1:]], inner.attrs, inner.ty_args))

    def _integers(self, values: Sequence[Expr], steps: Steps) -> list[Expr] | None:
        """Return the integers of `values` if all were dequantised with `steps`, else None."""
        found = []
        for value in values:
            call = call_of(self, value, "dequantize")
            if call is None or shape_of(call.args[0]) is None:
                return None
            if _steps(call, dtype_of(call.args[0])) != steps:
                return None
            found.append(call.args[0])
        return found


@tvm.transform.module_pass(opt_level=0, name="FoldQuantization")
class FoldQuantization(ModulePass):
    """Run operators that only select or move values on quantised integers.

    Before::

        lv = R.dequantize(x, scale, zero_point)
        lv1 = R.nn.max_pool2d(lv, [2, 2])
        lv2 = R.quantize(lv1, scale, zero_point)

    After::

        lv2 = R.nn.max_pool2d(x, [2, 2])

    Requires
        Nothing.

    Ensures
        A constant is quantised only if it is a weight and the other operand is quantised too.
        Between a dequantisation and a quantisation with the same parameters lies an operator that
        computes new values. Permuted weights are permuted integers. Parameters with equal elements
        are scalars. Unused bindings are left to dead-code elimination.
    """

    def transform_module(self, mod: IRModule, _context: tvm.transform.PassContext) -> IRModule:
        """Rewrite every function of `mod`."""
        return rewrite_functions(mod, lambda module, _function: _Folder(module))
