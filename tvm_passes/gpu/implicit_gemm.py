"""Schedule of a convolution as a matrix product whose left factor is gathered on load."""

from __future__ import annotations

import tvm
from tvm import s_tir, tirx
from tvm.s_tir.dlight.gpu.base import GPUScheduleRule
from tvm.s_tir.schedule import SBlockRV
from tvm.target import Target


class ImplicitGemm(GPUScheduleRule):
    """Schedule a sum over windows as `product` schedules matrix products.

    ``C[n, h, w, o] += X[n, 2 * h + y, 2 * w + x, c] * W[y, x, c, o]`` reads ``A[n, h, w, y, x, c]``
    instead: ``X`` unfolded (im2col). `product` inlines ``A`` into the loads of its tiles, so that
    it is never stored in global memory. Chetlur et al., "cuDNN: Efficient Primitives for Deep
    Learning" (2014), section 3.

    Parameters
    ----------
    product
        TVM's rule for ``C[s, i, j] += A[s, i, k] * B[s, j, k]``.
    """

    def __init__(self, product: GPUScheduleRule) -> None:
        self.product = product

    def apply(self, func: tirx.PrimFunc, target: Target, tunable: bool) -> s_tir.Schedule | None:
        """Return the schedule; None without a sum of products, or if `product` declines it."""
        unfolded = unfold(func)
        return self.product.apply(unfolded, target, tunable) if unfolded else None


def unfold(func: tirx.PrimFunc) -> tirx.PrimFunc | None:
    """Rewrite `func` so that its sum reads both factors at exactly its own loop indices.

    Further stages gather the factors into this form. None unless `func` has exactly one sum, over a
    product of two factors.
    """
    module = tvm.IRModule({"main": func.with_attr("global_symbol", "main")})
    schedule = s_tir.Schedule(module, error_render_level="none")
    sums = [block for block in child_blocks(schedule) if _sums(schedule, block)]
    if len(sums) != 1 or len(schedule.get(sums[0]).reads) != 2:
        return None
    try:
        for factor in (0, 1):
            schedule.reindex(sums[0], ("read", factor))
    except s_tir.schedule.ScheduleError:
        return None
    return schedule.mod["main"]


def child_blocks(schedule: s_tir.Schedule) -> list[SBlockRV]:
    """Return the stages of `main`."""
    return list(schedule.get_child_blocks(schedule.get_sblock("root", func_name="main")))


def _sums(schedule: s_tir.Schedule, block: SBlockRV) -> bool:
    """Return whether a stage sums over an axis."""
    return any(var.iter_type == tirx.IterVar.CommReduce for var in schedule.get(block).iter_vars)
