"""Reductions of few elements, such as those of pooling windows: one work-item computes a result by itself."""

from __future__ import annotations

from math import prod

from tvm import s_tir, tirx
from tvm.s_tir import dlight
from tvm.s_tir.dlight.analysis import normalize_prim_func
from tvm.s_tir.dlight.gpu.base import GPUScheduleRule
from tvm.target import Target

from tvm_passes.propagate_nan import from_infinity

MOST = 32
"""Elements that a result may be of: TVM's rules for reductions spread longer ones over the work-items of a warp or more."""


class Windows(GPUScheduleRule):
    """Give functions with a single reduction, and a short one, what TVM gives to those without any."""

    def apply(self, func: tirx.PrimFunc, target: Target, tunable: bool) -> s_tir.Schedule | None:
        """The schedule; None where `func` has no reduction, a long one, or several."""
        blocks = normalize_prim_func(s_tir.Schedule(func)) or []
        reductions = [block for block in blocks if block.is_reduction()]
        if len(reductions) != 1 or _length(reductions[0]) > MOST:
            return None
        return dlight.gpu.Fallback().apply(from_infinity(func), target, tunable)


def _length(block: dlight.analysis.SBlockInfo) -> int:
    return prod(int(axis.dom) for axis in block.iters if axis.kind == "R")
