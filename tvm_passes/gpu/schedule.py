"""A sub-graph as kernels of a device: TVM's legalisation and fusion, then its schedules for GPUs (dlight)."""

from __future__ import annotations

import tvm
from tvm import relax, tirx
from tvm.s_tir import dlight
from tvm.target import Target

from tvm_passes.errors import BuildError

_SCHEDULED = "tirx.is_scheduled"
_RULES = (
    dlight.gpu.Matmul(),
    dlight.gpu.GEMV(),
    dlight.gpu.Reduction(),
    dlight.gpu.GeneralReduction(),
    dlight.gpu.Fallback(),
)
_CONVOLUTION_RULES = (dlight.gpu.Matmul(), dlight.gpu.Fallback())
"""Behind a grouped convolution, `Reduction` of TVM 0.27 lets work-items read what others keep in registers."""


def legalise(function: relax.Function, target: Target) -> tvm.IRModule:
    """A module whose `main` computes `function` by calls of scheduled PrimFuncs, which know their target.

    Raises
    ------
    BuildError
        If no rule schedules one of them: it would run on the host, with the device's pointers.
    """
    is_convolution = "conv" in str(function.attrs.get("layoutsel.anchor", ""))
    rules = _CONVOLUTION_RULES if is_convolution else _RULES
    plain = relax.Function(function.params, function.body, function.ret_ty, is_pure=True).with_attr(
        "global_symbol", "main"
    )
    passes = tvm.transform.Sequential(
        [
            relax.transform.LegalizeOps(),
            relax.transform.AnnotateTIROpPattern(),
            relax.transform.FuseOps(),
            relax.transform.FuseTIR(),
            dlight.ApplyDefaultSchedule(*rules),
        ]
    )
    with target:
        module = passes(tvm.IRModule({"main": plain}))
    functions = {}
    for gv, func in module.functions.items():
        is_kernel = isinstance(func, tirx.PrimFunc)
        if is_kernel and not func.attrs.get(_SCHEDULED, False):
            raise BuildError(f"{gv.name_hint}: no rule schedules it for {target.kind.name}")
        functions[gv] = func.with_attr("target", target) if is_kernel else func
    return tvm.IRModule(functions)
