"""Reshapes around an element-wise operator with a constant: the constant is reshaped instead."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import tvm
from tvm import relax
from tvm.ir import Call, IRModule
from tvm.relax.expr_functor import PyExprMutator, mutator

from tvm_passes.arrays import array_of
from tvm_passes.ir import Constant, Expr, ModulePass, op_name
from tvm_passes.normalize._algebra import call_named
from tvm_passes.normalize._expressions import resolved, rewrite_functions, shape_of, use_counts

_OPERATORS = ("add", "subtract", "multiply", "divide", "maximum", "minimum")
"""Operators that combine an activation with a constant, element by element."""
_RESHAPES = ("reshape", "squeeze", "expand_dims", "flatten")
"""Operators that only change the shape."""


def _reshaped(
    constant: np.ndarray, shape: Sequence[int], target: Sequence[int]
) -> np.ndarray | None:
    """Return `constant` for a tensor of another shape; None if it would grow."""
    full = np.broadcast_to(constant, shape).reshape(target)
    for axis in range(len(target)):
        first = full.take([0], axis)
        if np.array_equal(np.broadcast_to(first, full.shape), full, equal_nan=True):
            full = first
    return np.ascontiguousarray(full) if full.size <= constant.size else None


def _folded(mutator_: PyExprMutator, call: Call) -> Expr | None:
    """Rewrite ``reshape(add(reshape(x), c))`` → ``add(x, c')``, or return None."""
    inner = call_named(mutator_, call.args[0], *_OPERATORS)
    if inner is None:
        return None
    for place, argument in enumerate(inner.args):
        other = resolved(mutator_, inner.args[1 - place])
        first = call_named(mutator_, argument, *_RESHAPES)
        if first is None or not isinstance(other, Constant):
            continue
        x, shape, target = first.args[0], shape_of(argument), shape_of(call)
        if shape is None or target is None or shape_of(x) != target or shape_of(inner) != shape:
            continue
        constant = _reshaped(array_of(other), shape, target)
        if constant is None:
            continue
        operands: list[Expr] = [x, relax.const(constant, str(other.ty.dtype))]
        return Call(inner.op, operands if place == 0 else operands[::-1], inner.attrs)
    return None


@mutator
class _Folder(PyExprMutator):
    def __init__(self, module: IRModule, function: relax.Function) -> None:
        super().__init__(module)
        self.uses = use_counts(function)

    def visit_call_(self, call: Call) -> Expr:
        # An operator whose result is read elsewhere as well would be computed twice.
        is_only = op_name(call) in _RESHAPES and self.uses[call.args[0]] == 1
        call = super().visit_call_(call)
        if not isinstance(call, Call) or not is_only:
            return call
        found = _folded(self, self.builder_.normalize(call))
        return call if found is None else found


@tvm.transform.module_pass(opt_level=0, name="FoldReshapes")
class FoldReshapes(ModulePass):
    """Remove reshapes around an element-wise operator with a constant, and reshape the constant.

    Networks with shifted windows add their masks so.

    Before::

        lv = R.reshape(x, (1, 64, 3, 49, 49))
        lv1 = R.add(lv, R.const(shape=(1, 64, 1, 49, 49)))
        lv2 = R.reshape(lv1, (64, 3, 49, 49))

    After::

        lv2 = R.add(x, R.const(shape=(64, 1, 49, 49)))

    Requires
        Constants folded (:class:`FoldConstants`).
    Ensures
        Values are equal, and no constant grows. Unused bindings are left to dead-code elimination.
    """

    def transform_module(self, mod: IRModule, _context: tvm.transform.PassContext) -> IRModule:
        """Rewrite every function of `mod`."""
        return rewrite_functions(mod, _Folder)
