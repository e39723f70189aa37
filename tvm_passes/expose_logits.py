"""Logits of a final softmax as an additional result: a saturated softmax would hide errors."""

from __future__ import annotations

import tvm
from tvm import relax

from tvm_passes.ir import Expr, ModulePass, main_bindings, op_name, results
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

    producers = [producer(result) for result in results(main)]
    return list(
        dict.fromkeys(
            value.args[0]
            for value in producers
            if has_trait(op_name(value), Trait.READS_LOGITS) and value.args[0] in values
        )
    )


class _Exposing(MainRewriter):
    def result(self, _expr: Expr) -> Expr:
        exposed = [*results(self.main), *logits(self.main)]
        return relax.Tuple([self.renewed(value) for value in exposed])


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
