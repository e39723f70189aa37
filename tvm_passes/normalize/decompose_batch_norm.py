"""Inference batch normalisation as a multiplication and an addition of constants."""

from __future__ import annotations

import numpy as np
import tvm
from tvm import relax
from tvm.ir import Call, IRModule, TupleGetItem
from tvm.relax.expr_functor import PyExprMutator, mutator

from tvm_passes.arrays import array_of
from tvm_passes.ir import Constant, Expr, ModulePass, constant_of
from tvm_passes.normalize._expressions import (
    call_of,
    dtype_of,
    normalized_axis,
    resolved,
    rewrite_functions,
    shape_of,
)


@mutator
class _Decomposer(PyExprMutator):
    def visit_tuple_getitem_(self, item: TupleGetItem) -> Expr:
        item = super().visit_tuple_getitem_(item)
        if not isinstance(item, TupleGetItem):
            return item
        call = call_of(self, item.tuple_value, "nn.batch_norm")
        if call is None or call.attrs.training:
            return item
        if item.index > 0:
            return call.args[2 + item.index]
        scaled = self._scaled(call)
        return item if scaled is None else scaled

    def _scaled(self, call: Call) -> Expr | None:
        data, *parameters = call.args
        values = [resolved(self, parameter) for parameter in parameters]
        shape = shape_of(data)
        if shape is None or not all(isinstance(value, Constant) for value in values):
            return None
        gamma, beta, mean, variance = (array_of(value).astype("float64") for value in values)
        scale = (gamma if call.attrs.scale else 1.0) / np.sqrt(variance + call.attrs.epsilon)
        shift = (beta if call.attrs.center else 0.0) - mean * scale
        channels = [1] * len(shape)
        channels[normalized_axis(call.attrs.axis, len(shape))] = -1

        def constant(array: np.ndarray) -> Constant:
            return constant_of(array.reshape(channels).astype(dtype_of(data)))

        product = self.builder_.emit(relax.op.multiply(data, constant(scale)))
        return relax.op.add(product, constant(shift))


@tvm.transform.module_pass(opt_level=0, name="DecomposeBatchNorm")
class DecomposeBatchNorm(ModulePass):
    """Replace inference batch normalisation by a multiplication and an addition of constants.

    Before::

        lv = R.nn.batch_norm(x, gamma, beta, mean, variance, axis=1)
        lv1 = lv[0]

    After::

        lv = R.multiply(x, scale)  # (1, C, 1, 1): gamma / sqrt(variance + epsilon)
        lv1 = R.add(lv, shift)  # (1, C, 1, 1): beta - mean * scale

    Requires
        Parameters folded to constants (:class:`FoldConstants`).
    Ensures
        No batch normalisation with constant parameters remains, except in training mode.
    """

    def transform_module(self, mod: IRModule, _context: tvm.transform.PassContext) -> IRModule:
        """Rewrite every function of `mod`."""
        return rewrite_functions(mod, lambda module, _function: _Decomposer(module))
