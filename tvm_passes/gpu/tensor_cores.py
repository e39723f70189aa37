"""Products of bfloat16 on CUDA's tensor cores; dlight has a rule for float16 only."""

from __future__ import annotations

from math import prod

from tvm import s_tir, tirx
from tvm.s_tir.dlight.gpu.base import GPUScheduleRule
from tvm.s_tir.dlight.gpu.matmul import (
    auto_inline_consumer_chain,
    auto_inline_producers,
    get_index_map,
)
from tvm.s_tir.schedule import LoopRV, SBlockRV
from tvm.target import Target

from tvm_passes.gpu.implicit_gemm import child_blocks
from tvm_passes.gpu.target import compute_capability
from tvm_passes.gpu.wmma import FACTOR, SHARED, SIDE, SUM, intrinsic

CAPABILITY = 80
"""Compute capability of the first GPUs whose tensor cores take bfloat16 (Ampere)."""

_WARP = 32
"""Threads of a warp."""
_WARPS = (2, 2)
"""Warps of a block, along rows and columns."""
_FRAGMENTS = (2, 2)
"""Fragments of a warp's sums, along rows and columns."""
_DEPTH = 2
"""Fragments along the depth that are loaded into shared memory in one step."""
_VECTOR = 4
"""Elements that a thread copies in one step."""
_MOST_PADDING = 4.0
"""Maximum ratio of padded to original work; below it, memory bandwidth is the limit."""


class TensorCores(GPUScheduleRule):
    """Schedule ``C[s, i, j] += A[s, i, k] * B[s, j, k]`` with bfloat16 factors and float32 sums.

    A block of four warps computes 64 x 64 sums. The factors pass through shared memory, in steps of
    32 along the depth.
    """

    def apply(self, func: tirx.PrimFunc, target: Target, _tunable: bool) -> s_tir.Schedule | None:
        """Return the schedule; None for other functions, or without such tensor cores."""
        if target.kind.name != "cuda" or compute_capability(target) < CAPABILITY:
            return None
        schedule = s_tir.Schedule(func, error_render_level="none")
        product = _product(schedule)
        if product is None:
            return None
        _Tiling(schedule, product).schedule_all()
        return schedule


def _product(schedule: s_tir.Schedule) -> SBlockRV | None:
    """Return the block of the only product, in its normal form and padded to whole tiles.

    None if there is no such product, or padding would add too much work.
    """
    found = [block for block in child_blocks(schedule) if _multiplies(schedule, block)]
    if len(found) != 1 or not get_index_map(schedule.get(found[0])):
        return None
    (block,) = found
    places = (("read", 0), ("read", 1), ("write", 0))
    copies = [schedule.reindex(block, place) for place in places]
    of_block, *of_tensors = get_index_map(schedule.get(block))
    sides = ("write", "write", "read")
    for copy, side, move in zip(copies, sides, of_tensors, strict=True):
        schedule.transform_layout(copy, (side, 0), move)
    schedule.transform_block_layout(block, of_block)
    tiles = (1, *(SIDE * w * f for w, f in zip(_WARPS, _FRAGMENTS, strict=True)), SIDE * _DEPTH)
    extents = [int(var.dom.extent) for var in schedule.get(block).iter_vars]
    padded = [-(-extent // tile) * tile for extent, tile in zip(extents, tiles, strict=True)]
    if prod(padded) > _MOST_PADDING * prod(extents):
        return None
    schedule.pad_einsum(block, tiles)
    return block


def _multiplies(schedule: s_tir.Schedule, block: SBlockRV) -> bool:
    """Return whether a block sums products of bfloat16 in float32."""
    statement = schedule.get(block)
    if all(var.iter_type == tirx.IterVar.DataPar for var in statement.iter_vars):
        return False
    read = [str(region.source.dtype) for region in statement.reads]
    written = [str(region.source.dtype) for region in statement.writes]
    return read == [FACTOR, FACTOR] and written == [SUM]


class _Tiling:
    """Steps of the schedule on the loops of one product."""

    def __init__(self, schedule: s_tir.Schedule, block: SBlockRV) -> None:
        self.schedule = schedule
        self.block = block

    def schedule_all(self) -> None:
        """Tile, bind, stage and tensorise."""
        schedule = self.schedule
        batch, i, j, k = schedule.get_loops(self.block)
        i0, i1, i2, i3 = schedule.split(i, [None, _WARPS[0], _FRAGMENTS[0], SIDE])
        j0, j1, j2, j3 = schedule.split(j, [None, _WARPS[1], _FRAGMENTS[1], SIDE])
        k0, k1, k2 = schedule.split(k, [None, _DEPTH, SIDE])
        schedule.reorder(i0, j0, i1, j1, k0, k1, i2, j2, i3, j3, k2)
        tile = schedule.blockize(i3)
        warp = schedule.fuse(i1, j1)
        for loop, axis in ((batch, "z"), (i0, "x"), (j0, "y")):
            schedule.bind(loop, f"blockIdx.{axis}")
        schedule.bind(warp, "threadIdx.y")
        for index, load in enumerate(("load_a", "load_b")):
            self._stage(tile, index, k0)
            self._load(tile, index, k1, load)
        out = self._write(tile, warp)
        start = schedule.decompose_reduction(tile, k0)
        (fill,) = schedule.get_child_blocks(start)
        schedule.tensorize(schedule.get_loops(fill)[-2], intrinsic("fill"))
        schedule.tensorize(schedule.get_loops(self.block)[-3], intrinsic("multiply"))
        auto_inline_consumer_chain(schedule, out)
        self._spread(schedule.fuse(*schedule.get_loops(out)[-2:]), warps=False)

    def _stage(self, tile: SBlockRV, index: int, at: LoopRV) -> None:
        """Copy the next tiles of one factor into shared memory, by all warps.

        The operators that produce the factor are computed as part of the copy.
        """
        schedule = self.schedule
        copy = schedule.cache_read(tile, index, SHARED)
        schedule.compute_at(copy, at)
        self._spread(schedule.fuse(*schedule.get_loops(copy)[-2:]), warps=True)
        # Rows start in different banks.
        schedule.storage_align(copy, 0, axis=-2, factor=SIDE, offset=SIDE // 2)
        auto_inline_producers(schedule, copy)

    def _load(self, tile: SBlockRV, index: int, at: LoopRV, name: str) -> None:
        """Load fragments from shared memory, by each warp."""
        load = self.schedule.cache_read(tile, index, f"wmma.matrix_{'ab'[index]}")
        self.schedule.compute_at(load, at)
        self._tensorised(load, name)

    def _write(self, tile: SBlockRV, warp: LoopRV) -> SBlockRV:
        """Store the sums through shared memory; returns the block that reads them there."""
        out = self.schedule.cache_write(tile, 0, SHARED)
        store = self.schedule.cache_write(tile, 0, "wmma.accumulator")
        self.schedule.reverse_compute_at(store, warp)
        self.schedule.reverse_compute_at(out, warp)
        self._tensorised(store, "store")
        return out

    def _tensorised(self, block: SBlockRV, name: str) -> None:
        i, j = self.schedule.get_loops(block)[-2:]
        i0, i1 = self.schedule.split(i, [None, SIDE])
        j0, j1 = self.schedule.split(j, [None, SIDE])
        self.schedule.reorder(i0, j0, i1, j1)
        self.schedule.tensorize(i1, intrinsic(name))

    def _spread(self, loop: LoopRV, *, warps: bool) -> None:
        """Distribute a loop over the threads of a warp, or of all warps."""
        team = [_WARPS[0] * _WARPS[1]] if warps else []
        _, *threads, lanes = self.schedule.split(loop, [None, *team, _WARP, _VECTOR])
        for thread, axis in zip(reversed(threads), "xy", strict=False):
            self.schedule.bind(thread, f"threadIdx.{axis}")
        self.schedule.vectorize(lanes)
