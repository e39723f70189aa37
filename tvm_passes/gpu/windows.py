"""Schedule of short reductions, such as pooling windows: each work-item computes one result."""

from __future__ import annotations

from math import prod

from tvm import s_tir, tirx
from tvm.s_tir import dlight
from tvm.s_tir.dlight.analysis import normalize_prim_func
from tvm.s_tir.dlight.gpu.base import GPUScheduleRule
from tvm.target import Target

from tvm_passes.propagate_nan import from_infinity

MOST = 32
"""Maximum number of elements per result; TVM's rules spread longer reductions over a whole warp."""


class Windows(GPUScheduleRule):
    """Schedule functions with a single, short reduction as TVM schedules functions without any."""

    def apply(self, func: tirx.PrimFunc, target: Target, tunable: bool) -> s_tir.Schedule | None:
        """Return the schedule; None if `func` has no reduction, a long one, or several."""
        blocks = normalize_prim_func(s_tir.Schedule(func)) or []
        reductions = [block for block in blocks if block.is_reduction()]
        if len(reductions) != 1 or _length(reductions[0]) > MOST:
            return None
        return dlight.gpu.Fallback().apply(from_infinity(func), target, tunable)


def _length(block: dlight.analysis.SBlockInfo) -> int:
    """Return the number of elements per result."""
    return prod(int(axis.dom) for axis in block.iters if axis.kind == "R")
