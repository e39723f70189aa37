"""Schedule of functions without a specific kernel: parallel outer loops, vectorised inner one."""

from __future__ import annotations

import logging
from math import prod

import tvm
from tvm import s_tir, tirx
from tvm.s_tir.schedule import SBlockRV

from tvm_passes.cpu.host import VectorUnit
from tvm_passes.tuned import SCHEDULED

_LOGGER = logging.getLogger(__name__)
_PARALLEL_WORK = 4096
"""Minimum number of iterations of a parallel loop; below it, starting threads does not pay."""


def schedule_generic(function: tirx.PrimFunc, unit: VectorUnit) -> tirx.PrimFunc:
    """Inline the element-wise stages of `function`, and make its loops parallel and vectorised.

    A function that no rule fits is returned unchanged: slow, but correct.
    """
    try:
        scheduled = _schedule(function, unit)
    except (s_tir.schedule.ScheduleError, RuntimeError, ValueError, TypeError) as error:
        _LOGGER.info("no generic schedule for %s: %s", function, str(error).splitlines()[-1])
        return function
    return scheduled.with_attr(SCHEDULED, True)


def _schedule(function: tirx.PrimFunc, unit: VectorUnit) -> tirx.PrimFunc:
    module = tvm.IRModule({"main": function.with_attr("global_symbol", "main")})
    schedule = s_tir.Schedule(module, error_render_level="none")
    _inline(schedule)
    for block in _blocks(schedule):
        _schedule_block(schedule, block, unit)
    result = schedule.mod["main"].without_attr("global_symbol")
    return result


def _blocks(schedule: s_tir.Schedule) -> list[SBlockRV]:
    """Return the stages of a function."""
    root = schedule.get_sblock("root", func_name="main")
    return list(schedule.get_child_blocks(root))


def _inline(schedule: s_tir.Schedule) -> None:
    """Inline every stage into its consumers or producer, if TVM's primitives allow it."""
    for block in _blocks(schedule):
        if _reduces(schedule, block):
            continue
        for primitive in (schedule.compute_inline, schedule.reverse_compute_inline):
            try:
                primitive(block)
                break
            except s_tir.schedule.ScheduleError:
                continue


def _reduces(schedule: s_tir.Schedule, block: SBlockRV) -> bool:
    """Return whether a stage reduces over an axis."""
    return any(var.iter_type != tirx.IterVar.DataPar for var in schedule.get(block).iter_vars)


def _schedule_block(schedule: s_tir.Schedule, block: SBlockRV, unit: VectorUnit) -> None:
    """Reorder, vectorise and parallelise the loops of one stage."""
    loops = schedule.get_loops(block)
    statement = schedule.get(block)
    if len(loops) != len(statement.iter_vars) or not loops:
        return
    kinds = [var.iter_type for var in statement.iter_vars]
    spatial = [
        loop for loop, kind in zip(loops, kinds, strict=True) if kind == tirx.IterVar.DataPar
    ]
    reduction = [loop for loop in loops if loop not in spatial]
    if any(kind not in (tirx.IterVar.DataPar, tirx.IterVar.CommReduce) for kind in kinds):
        return
    if not spatial:
        return
    extents = [int(schedule.get(loop).extent) for loop in spatial]
    total = prod(extents) * prod(int(schedule.get(loop).extent) for loop in reduction)
    schedule.reorder(*spatial, *reduction)
    inner = _vector_loop(schedule, spatial, extents, unit)
    if reduction:
        if inner is not None:
            schedule.reorder(*reduction, inner)
        schedule.decompose_reduction(block, reduction[0])
    elif inner is not None:
        schedule.vectorize(inner)
    if inner is not None and reduction:
        schedule.vectorize(inner)
    if total >= _PARALLEL_WORK and len(spatial) > (inner is None) - 1:
        outer = schedule.fuse(*spatial[:-1]) if len(spatial) > 2 else spatial[0]
        schedule.parallel(outer)


def _vector_loop(
    schedule: s_tir.Schedule, spatial: list[object], extents: list[int], unit: VectorUnit
) -> object | None:
    """Split a vector off the innermost spatial loops; `spatial` becomes the loops outside it."""
    count, size = 1, extents[-1]
    while size % unit.lanes and count < len(extents):
        count += 1
        size *= extents[-count]
    if size % unit.lanes:
        return None
    fused = schedule.fuse(*spatial[-count:]) if count > 1 else spatial[-1]
    outer, inner = schedule.split(fused, [None, unit.lanes])
    spatial[-count:] = [outer]
    return inner
