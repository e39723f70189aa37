"""Logits of a final softmax as an additional result: a saturated softmax would hide errors."""

from __future__ import annotations

import tvm
from tvm import relax

from tvm_passes.ir import Expr, ModulePass, main_bindings, op_name
from tvm_passes.main_rewriter import MainRewriter
from tvm_passes.operators import Trait, has_trait


def logits(main: relax.Function) -> list[Expr]:
    """Return the inputs of the final softmaxes of `main`, in the order of its results."""
    values = {binding.var: binding.value for binding in main_bindings(main)}

    def producer(expr: Expr) -> Expr:
        value: Expr = values.get(expr)
        while isinstance(value, relax.Var) or has_trait(op_name(value), Trait.RENAMES):
            value = values.get(value if isinstance(value, relax.Var) else value.args[0])
        return value

    result = main.body.body
    while isinstance(values.get(result), relax.Var):
        result = values[result]
    tupled = values.get(result, result)
    fields = tupled.fields if isinstance(tupled, relax.Tuple) else [result]
    producers = [producer(field) for field in fields]
    return list(
        dict.fromkeys(
            value.args[0]
            for value in producers
            if has_trait(op_name(value), Trait.READS_LOGITS) and value.args[0] in values
        )
    )


class _Exposing(MainRewriter):
    def result(self, expr: Expr) -> Expr:
        result = self.renewed(expr)
        own = [result]
        if isinstance(expr.ty, relax.TupleType):
            count = len(expr.ty.fields)
            own = [self.builder.emit(relax.TupleGetItem(result, i)) for i in range(count)]
        return relax.Tuple([*own, *(self.mapping[value] for value in logits(self.main))])


@tvm.transform.module_pass(opt_level=0, name="ExposeLogits")
class ExposeLogits(ModulePass):
    """Append the inputs of final softmaxes to the results of `main`.

    ``return softmax(y)`` → ``return softmax(y), y``.

    *Requires* a `main` without control flow. *Ensures* that a module without a final softmax stays
    unchanged.
    """

    def transform_module(
        self, module: tvm.IRModule, _context: tvm.transform.PassContext
    ) -> tvm.IRModule:
        """Expose the logits of `module`."""
        return _Exposing(module).run() if logits(module["main"]) else module
