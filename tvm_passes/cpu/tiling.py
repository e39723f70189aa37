"""Register and cache blocking of convolutions and matrix products, by a cost estimate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from tvm_passes.cpu.host import VectorUnit

_L2_WEIGHT_CYCLES = 0.3
"""Cycles to stream one vector of weights from the second-level cache, in addition to its load."""
_TILE_CYCLES = 60.0
"""Cycles to start and finish one register tile, per vector of accumulators / 16."""
_TASK_CYCLES = 200
"""Cycles to start one task."""
_MEMORY_BYTES_PER_CYCLE = 6.0
"""Approximate bandwidth of the outer caches for one core."""
_FOREIGN_BYTES_PER_CYCLE = 2.5
"""Approximate bandwidth at which a core reads what another core has just written."""


@dataclass(frozen=True, kw_only=True)
class Tiling:
    """Register tiles and tasks of a convolution's result."""

    widths: tuple[int, ...]
    """Pixels of each register tile along a row; the first ones may be one wider than the rest."""
    vectors: int
    """Vectors of output channels in a register tile."""
    rows: int
    """Rows of one task."""
    shares: int
    """Tasks that share a block of rows, each with as many register tiles of every row."""
    cycles: float
    """Estimated cycles of the slowest thread."""
    tasks: int
    """Number of tasks: blocks of rows, times shares, times tiles of channels."""


def even_split(total: int, parts: int) -> tuple[int, ...]:
    """Split `total` into `parts` integers that differ by at most one, larger ones first."""
    base, extra = divmod(total, parts)
    return (base + 1,) * extra + (base,) * (parts - extra)


def tile_cycles(width: int, vectors: int) -> float:
    """Estimate the cycles of one reduction step.

    Each cycle performs two multiply-adds and two loads; a multiply-add has a latency of four.
    """
    arithmetic = width * vectors / 2
    loads = (width + vectors) / 2
    return max(arithmetic, loads, 4.0) + _L2_WEIGHT_CYCLES * vectors


def widest_tile(vectors: int, unit: VectorUnit) -> int:
    """Return the maximum number of pixels of a tile that fits the vector registers.

    The registers hold the accumulators, the weights and one broadcast value.
    """
    return max((unit.registers - 2 - vectors) // vectors, 1)


@dataclass(frozen=True, kw_only=True)
class RowTiling:
    """Register tiles of one row of results."""

    cycles: float
    """Cycles for the row and all channels of a group."""
    widths: tuple[int, ...]
    """Pixels of each tile."""
    vectors: int
    """Vectors of output channels in a tile."""
    shares: int
    """Equal shares of the tiles for different tasks."""


@cache
def row_tilings(
    row: int, channel_vectors: int, steps: int, unit: VectorUnit, shares: int = 1
) -> tuple[RowTiling, ...]:
    """Return the cheapest tiling for each number of vectors per tile.

    Parameters
    ----------
    row
        Pixels in a row.
    channel_vectors
        Vectors of output channels (of one group).
    steps
        Length of the reduction.
    shares
        Number of equal shares of the tiles. Rows with fewer pixels have no tiling.
    """

    def cost(parts: int, vectors: int) -> float:
        width, wider = divmod(row, parts)
        full, rest = divmod(channel_vectors, vectors)
        cycles = 0.0
        for size, count in ((width, parts - wider), (width + 1, wider)):
            overhead = _TILE_CYCLES * (size + 2) / 16
            cycles += count * full * (tile_cycles(size, vectors) * steps + overhead * vectors)
            if rest:
                cycles += count * (tile_cycles(size, rest) * steps + overhead * rest)
        return cycles

    tilings = []
    for vectors in range(1, min(4, channel_vectors) + 1):
        fewest = -(-row // widest_tile(vectors, unit) // shares) * shares
        most = min(fewest + 4 * shares, row)
        counts = range(fewest, most + 1, shares)
        if not counts:
            continue
        cycles, parts = min((cost(parts, vectors), parts) for parts in counts)
        widths = even_split(row, parts)
        tiling = RowTiling(cycles=cycles, widths=widths, vectors=vectors, shares=shares)
        tilings.append(tiling)
    return tuple(tilings)


def best_row_cycles(row: int, channel_vectors: int, steps: int, unit: VectorUnit) -> float:
    """Return the cycles of a row in the cheapest tiling."""
    return min(tiling.cycles for tiling in row_tilings(row, channel_vectors, steps, unit))


def virtual_rows(pixels: int, channel_vectors: int, steps: int, unit: VectorUnit) -> int:
    """Return the best length of rows for a run of independent pixels: a divisor of `pixels`."""
    candidates = [row for row in range(1, min(pixels, 128) + 1) if pixels % row == 0]
    if pixels <= 4096:
        candidates += [] if pixels in candidates else [pixels]

    def cost(row: int) -> tuple[float, int]:
        cycles = best_row_cycles(row, channel_vectors, steps, unit) * (pixels // row)
        few = pixels // row * -(-channel_vectors // 2) < 2 * unit.threads
        return cycles * (1.3 if few and row > 1 else 1.0), abs(row - 28)

    return min(candidates, key=cost)


@dataclass(frozen=True, kw_only=True)
class ParallelWork:
    """Work that threads share."""

    rows: int
    """Rows of results."""
    channel_vectors: int
    """Vectors of output channels in one group."""
    groups: int
    """Number of channel groups."""
    row_bytes: int
    """Size of the input that a row reads, bytes."""
    weight_bytes: int
    """Size of the weights, bytes."""


def best_tiling(row: Sequence[RowTiling], work: ParallelWork, unit: VectorUnit) -> Tiling:
    """Choose the tiling with the shortest estimated time of the slowest thread.

    Tasks run in the order (block of rows, share of each row, tile of channels), in equal runs per
    thread. Small blocks stream the weights often, large ones the input; too few tasks leave threads
    idle. Threads that compute all channels of their rows read what they wrote themselves, as the
    kernel before is taken to have divided its rows likewise.
    """
    candidates = [
        (_thread_cycles(tiling, block, work, unit), block, tiling.vectors, place)
        for place, tiling in enumerate(row)
        for block in _block_candidates(work.rows, unit.threads)
    ]
    cycles, block, _, place = min(candidates)
    chosen = row[place]
    tasks = _row_blocks(chosen, block, work) * _channel_tiles(chosen, work)
    return Tiling(
        widths=chosen.widths,
        vectors=chosen.vectors,
        rows=block,
        shares=chosen.shares,
        cycles=cycles,
        tasks=tasks,
    )


def _row_blocks(tiling: RowTiling, block: int, work: ParallelWork) -> int:
    """Return the number of blocks of `block` rows, times the shares of each."""
    return -(-work.rows // block) * tiling.shares


def _channel_tiles(tiling: RowTiling, work: ParallelWork) -> int:
    """Return the number of tiles of output channels in all groups."""
    return work.groups * -(-work.channel_vectors // tiling.vectors)


def _thread_cycles(tiling: RowTiling, block: int, work: ParallelWork, unit: VectorUnit) -> float:
    """Estimate the cycles of the slowest thread."""
    budget = unit.l2_bytes
    channel_tiles = _channel_tiles(tiling, work)
    tasks = _row_blocks(tiling, block, work) * channel_tiles
    chunk = -(-tasks // unit.threads)
    # The last tile of channels may be narrower; it belongs to one thread.
    narrow = -work.channel_vectors % tiling.vectors / tiling.vectors
    whole = chunk - (narrow if tasks % unit.threads == 0 and chunk == tasks else 0)
    rows = block / tiling.shares
    per_task = tiling.cycles * work.groups * rows / (channel_tiles - narrow * work.groups)
    blocks_each = max(chunk / channel_tiles, 1.0)
    tiles_each = min(chunk, channel_tiles)
    share = work.weight_bytes * tiles_each / channel_tiles
    weights = share * (blocks_each if share > budget else 1.0)
    if work.weight_bytes / channel_tiles > budget * 0.75:
        weights *= block
    group_tiles = channel_tiles // work.groups
    groups_each = -(-tiles_each // group_tiles)
    block_bytes = work.row_bytes * rows / work.groups
    passes = min(tiles_each, group_tiles) if block_bytes > budget else 1
    source = block_bytes * blocks_each * groups_each * passes
    traffic = (weights + source) / _MEMORY_BYTES_PER_CYCLE
    others_rows = max(blocks_each * rows - work.rows / unit.threads, 0.0)
    others = work.row_bytes * others_rows * groups_each / work.groups
    foreign = others / _FOREIGN_BYTES_PER_CYCLE
    return per_task * whole + 0.5 * traffic + foreign + _TASK_CYCLES * chunk


def _block_candidates(rows: int, threads: int) -> Sequence[int]:
    """Return the candidates for the rows of a task."""
    candidates = {rows, -(-rows // threads), -(-rows // (2 * threads)), -(-rows // (4 * threads))}
    candidates |= {block for block in (1, 2, 4, 7, 8, 14, 16, 28, 32, 56) if block <= rows}
    return sorted(candidates)
