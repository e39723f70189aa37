"""Splits into parts of one place become places taken: a part is then read where it is."""

from __future__ import annotations

import numpy as np
import tvm
from tvm import relax
from tvm.ir import Call, IRModule, TupleGetItem
from tvm.relax.expr_functor import PyExprMutator, mutator

from tvm_passes.ir import Expr, ModulePass, op_name
from tvm_passes.normalize._expressions import call_of, resolved, rewrite_functions, shape_of


def _taken(mutator_: PyExprMutator, call: Call) -> Expr | None:
    """Rewrite ``squeeze(split(x)[i])`` → ``take(x, i)`` if a part has one place, or None."""
    part = resolved(mutator_, call.args[0])
    if not isinstance(part, TupleGetItem):
        return None
    split = call_of(mutator_, part.tuple_value, "split")
    source = None if split is None else shape_of(split.args[0])
    if split is None or source is None:
        return None
    axis = int(split.attrs.axis) % len(source)
    if len(part.tuple_value.ty.fields) != source[axis]:
        return None
    if shape_of(call) != (*source[:axis], *source[axis + 1 :]):
        return None
    index = relax.const(np.int64(part.index), "int64")
    return relax.op.take(split.args[0], index, axis=axis)


@mutator
class _Unbinder(PyExprMutator):
    def visit_call_(self, call: Call) -> Expr:
        call = super().visit_call_(call)
        if not isinstance(call, Call) or op_name(call) not in ("squeeze", "reshape"):
            return call
        found = _taken(self, self.builder_.normalize(call))
        return call if found is None else found


@tvm.transform.module_pass(opt_level=0, name="UnbindSplits")
class UnbindSplits(ModulePass):
    """Replace splits into parts of one place, whose axis is then removed, by places taken.

    Exporters write the unbinding of queries, keys and values so.

    Before::

        lv = R.split(x, 3, axis=0)
        lv1 = R.squeeze(lv[1], axis=[0])

    After::

        lv1 = R.take(x, R.const(1), axis=0)

    Requires
        Nothing.
    Ensures
        Values are equal. Unused bindings are left to dead-code elimination.
    """

    def transform_module(self, mod: IRModule, _context: tvm.transform.PassContext) -> IRModule:
        """Rewrite every function of `mod`."""
        return rewrite_functions(mod, lambda module, _function: _Unbinder(module))
