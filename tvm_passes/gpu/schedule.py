"""Schedules for devices: TVM's rules for GPUs (dlight), convolutions and tensor cores."""

from __future__ import annotations

import logging

import tvm
from tvm import relax, s_tir, tirx
from tvm.s_tir import dlight
from tvm.s_tir.dlight.gpu.base import GPUScheduleRule
from tvm.target import Target

from tvm_passes.errors import BuildError
from tvm_passes.gpu.implicit_gemm import ImplicitGemm
from tvm_passes.gpu.single_terms import without_single_terms
from tvm_passes.gpu.tensor_cores import TensorCores
from tvm_passes.gpu.windows import Windows
from tvm_passes.legalize import legalize_operators
from tvm_passes.propagate_nan import propagating
from tvm_passes.tuned import SCHEDULED

_LOGGER = logging.getLogger(__name__)


class _Tried(GPUScheduleRule):
    """A rule that declines the functions on which it fails, so that the next rule can try."""

    def __init__(self, rule: GPUScheduleRule) -> None:
        self.rule = rule

    def apply(self, func: tirx.PrimFunc, target: Target, tunable: bool) -> s_tir.Schedule | None:
        """Return the rule's schedule; None if it has none, or fails."""
        try:
            return self.rule.apply(func, target, tunable)
        except Exception as error:  # TVM's rules raise many types, assertions included.
            reason = str(error).strip().splitlines() or [type(error).__name__]
            _LOGGER.info("%s does not schedule: %s", type(self.rule).__name__, reason[-1])
            return None


_PRODUCTS = (TensorCores(), dlight.gpu.Matmul())
"""Rules for matrix products, the fastest first."""
_RULES = tuple(
    map(
        _Tried,
        (
            *_PRODUCTS,
            dlight.gpu.GEMV(),
            Windows(),
            dlight.gpu.Reduction(),
            dlight.gpu.GeneralReduction(),
            dlight.gpu.Fallback(),
        ),
    )
)
"""Rules for all functions except convolutions, in order of preference."""
_CONVOLUTION_RULES = tuple(map(_Tried, (*map(ImplicitGemm, _PRODUCTS), dlight.gpu.Fallback())))
"""Rules for convolutions.

After a grouped convolution, `Reduction` of TVM 0.27 makes work-items read values that other
work-items keep in registers.
"""


def _prepared(func: tirx.PrimFunc) -> tirx.PrimFunc:
    """Return `func` in the form that the rules accept, with NaN propagated."""
    return without_single_terms(propagating(func))


def schedule(module: tvm.IRModule, target: Target, *, is_convolution: bool) -> tvm.IRModule:
    """Schedule the PrimFuncs of `module` for `target`, and attach the target.

    Raises
    ------
    BuildError
        If no rule schedules one of them: it would run on the host with the device's pointers.
    """
    rules = _CONVOLUTION_RULES if is_convolution else _RULES
    plain = {
        gv: _prepared(func) if isinstance(func, tirx.PrimFunc) else func
        for gv, func in module.functions.items()
    }
    with target:
        module = dlight.ApplyDefaultSchedule(*rules)(tvm.IRModule(plain))
    functions = {}
    for gv, func in module.functions.items():
        is_kernel = isinstance(func, tirx.PrimFunc)
        if is_kernel and not func.attrs.get(SCHEDULED, False):
            raise BuildError(f"{gv.name_hint}: no rule schedules it for {target.kind.name}")
        functions[gv] = func.with_attr("target", target) if is_kernel else func
    return tvm.IRModule(functions)


def legalise(function: relax.Function, target: Target, *, is_convolution: bool) -> tvm.IRModule:
    """Make a module whose `main` computes `function` by calls of PrimFuncs scheduled for `target`.

    Raises
    ------
    BuildError
        If no rule schedules one of the PrimFuncs; see :func:`schedule`.
    """
    plain = relax.Function(function.params, function.body, function.ret_ty, is_pure=True).with_attr(
        "global_symbol", "main"
    )
    passes = tvm.transform.Sequential(
        [
            legalize_operators(),
            relax.transform.AnnotateTIROpPattern(),
            relax.transform.FuseOps(),
            relax.transform.FuseTIR(),
        ]
    )
    with target:
        module = passes(tvm.IRModule({"main": plain}))
    return schedule(module, target, is_convolution=is_convolution)
