"""Replacement of a sub-graph function's call by its lowered body."""

from __future__ import annotations

from collections.abc import Sequence

from tvm import relax
from tvm.ir import GlobalVar

from tvm_passes.ir import Expr, main_bindings, substitute


def label_of(function: relax.Function) -> str:
    """Return the name prefix of a function's results, for traces: ``s3_``, ``NCHW_to_NHWC_``."""
    attrs = function.attrs
    name = attrs["layoutsel.transform" if "layoutsel.transform" in attrs else "layoutsel.subgraph"]
    return f"{str(name).replace('>', '_to_')}_"


def inline(
    builder: relax.BlockBuilder, function: relax.Function, arguments: Sequence[Expr], label: str
) -> Expr:
    """Emit the body of `function` over `arguments`; returns its result.

    `label` precedes the name of each value.
    """
    mapping: dict[Expr, Expr] = dict(zip(function.params, arguments, strict=True))
    for binding in main_bindings(function):
        value = substitute(binding.value, mapping.get)
        mapping[binding.var] = builder.emit(value, label)
    return substitute(function.body.body, mapping.get)


def redirect(function: relax.Function, mapping: dict[GlobalVar, GlobalVar]) -> relax.Function:
    """Return `function` with its callees replaced by those of `mapping`."""

    @relax.expr_functor.mutator
    class _Redirect(relax.PyExprMutator):
        def visit_global_var_(self, gvar: GlobalVar) -> Expr:
            return mapping.get(gvar, gvar)

    return _Redirect().visit_expr(function)
