"""Sub-graphs without a specific kernel: TVM's legalisation and fusion, and the generic schedule."""

from __future__ import annotations

import tvm
from tvm import relax, tirx
from tvm.ir import GlobalVar

from tvm_passes.cpu.generic_schedule import schedule_generic
from tvm_passes.cpu.host import VectorUnit
from tvm_passes.legalize import legalize_operators
from tvm_passes.propagate_nan import from_infinity, propagating


def legalise(function: relax.Function, unit: VectorUnit) -> tvm.IRModule:
    """Make a module whose `main` computes `function` by calls of scheduled PrimFuncs."""
    plain = relax.Function(function.params, function.body, function.ret_ty, is_pure=True).with_attr(
        "global_symbol", "main"
    )
    module = tvm.IRModule({"main": plain})
    module = tvm.transform.Sequential(
        [
            legalize_operators(),
            relax.transform.AnnotateTIROpPattern(),
            relax.transform.FuseOps(),
            relax.transform.FuseTIR(),
        ]
    )(module)
    scheduled: dict[GlobalVar, tvm.ir.BaseFunc] = {}
    for gv, func in module.functions.items():
        ours = isinstance(func, tirx.PrimFunc) and not _only_reshapes(func)
        exact = from_infinity(propagating(func)) if ours else func
        scheduled[gv] = schedule_generic(exact, unit) if ours else func
    return tvm.IRModule(scheduled)


def _only_reshapes(function: tirx.PrimFunc) -> bool:
    """Return whether TVM turns a call of `function` into a view, which requires its pattern."""
    return len(function.params) == 2 and bool(relax.analysis.has_reshape_pattern(function))
