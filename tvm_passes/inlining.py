"""Put what a sub-graph function was lowered to in place of its call."""

from __future__ import annotations

from collections.abc import Sequence

from tvm import relax
from tvm.ir import GlobalVar

from tvm_passes.ir import Expr, Var, main_bindings, substitute


def label_of(function: relax.Function) -> str:
    """What the results of a function's calls are named after, for traces: ``s3_``, ``NCHW_to_NHWC_``."""
    attrs = function.attrs
    name = attrs["layoutsel.transform" if "layoutsel.transform" in attrs else "layoutsel.subgraph"]
    return f"{str(name).replace('>', '_to_')}_"


def hint_of(var: Var) -> str:
    """What a value was named after, for one that takes its place."""
    return var.name.rstrip("0123456789")


def inline(
    builder: relax.BlockBuilder, function: relax.Function, arguments: Sequence[Expr], label: str
) -> Expr:
    """Emit the body of `function` with these arguments, every value named after `label`; its result."""
    mapping: dict[Expr, Expr] = dict(zip(function.params, arguments, strict=True))
    for binding in main_bindings(function):
        value = substitute(binding.value, mapping.get)
        mapping[binding.var] = builder.emit(value, label)
    return substitute(function.body.body, mapping.get)


def redirect(function: relax.Function, mapping: dict[GlobalVar, GlobalVar]) -> relax.Function:
    """`function` with its callees replaced."""

    @relax.expr_functor.mutator
    class _Redirect(relax.PyExprMutator):
        def visit_global_var_(self, gvar: GlobalVar) -> Expr:
            return mapping.get(gvar, gvar)

    return _Redirect().visit_expr(function)
