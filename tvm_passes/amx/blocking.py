"""Blocking of a product: blocks that share loaded tiles, and tasks for threads."""

from __future__ import annotations

from dataclasses import dataclass

from tvm_passes.amx.geometry import Geometry
from tvm_passes.amx.tiles import LANES, REGISTERS

_PASS_BYTES = 128 << 10
"""Maximum size of weights that are read again for every block of pixels, bytes.

Repeatedly read data must stay in the second-level cache. Larger weights are therefore traversed
once, and the pixels are read again.
"""
_SHARED = 2
"""Ratio of the weights' to the source's size above which threads share the weights.

Half of the source that each thread then reads comes from another core's cache, which is slower than
the place that the weights come from.
"""
_FEW_PIXELS = 4
"""Maximum number of pixel tiles that one block takes if each has many weights.

Every weight is then loaded once.
"""


@dataclass(frozen=True, kw_only=True)
class Block:
    """Tiles of a register block: `pixels` times `channels` accumulators.

    The remaining registers hold operands.
    """

    pixels: int
    """Tiles along the pixels."""
    channels: int
    """Tiles along the output channels."""

    @property
    def accumulators(self) -> int:
        """Number of registers that hold sums."""
        return self.pixels * self.channels

    def operands(self, halves: int) -> tuple[range, range]:
        """Return the registers of pixels, and those of weights.

        The operands of the shorter side stay in registers; those of the longer side are loaded in
        turn.
        """
        free = REGISTERS - self.accumulators
        if self.channels <= self.pixels:
            weights = min(self.channels * halves, free - halves)
        else:
            weights = free - min(self.pixels * halves, free - halves)
        first = self.accumulators
        return range(first, REGISTERS - weights), range(REGISTERS - weights, REGISTERS)


@dataclass(frozen=True, kw_only=True)
class Cut:
    """Departures of an algorithm from the rules of blocking; None follows the rule."""

    block: Block | None = None
    """Register block."""
    by_channels: bool | None = None
    """True if threads share the output channels, False if they share the rows."""
    pixels_first: bool | None = None
    """Order of the loops; see :class:`Blocking`."""


@dataclass(frozen=True, kw_only=True)
class Blocking:
    """Blocks and tasks of one product."""

    block: Block
    """Register block."""
    rows: int
    """Rows of results of one task."""
    chunks: int
    """Number of tasks among which the rows of an image are divided."""
    parts: int
    """Number of tasks among which the output channels are divided."""
    pixels_first: bool
    """Order of the loops over a task.

    If true, each block of pixels traverses all weights of its task; otherwise, each block of
    weights traverses all pixels.
    """


def choose(geometry: Geometry, channels: int, cut: Cut, threads: int) -> Blocking:
    """Choose the blocking of a product.

    Parameters
    ----------
    channels
        Number of output channels.
    cut
        Departures from the rules.
    threads
        Number of threads that share the tasks.
    """
    columns = -(-channels // LANES)
    conv = geometry.convolution
    weight_bytes = 2 * geometry.halves * geometry.steps * geometry.depth * columns * LANES
    source_bytes = (
        2 * geometry.halves * conv.batch * conv.in_channels * conv.in_height * conv.in_width
    )
    by_channels = (
        weight_bytes > _SHARED * source_bytes if cut.by_channels is None else cut.by_channels
    )
    by_channels = by_channels and columns >= threads
    parts = threads if by_channels else 1
    chunks = 1 if by_channels else -(-threads // geometry.images)
    while chunks < geometry.height and not geometry.fits(-(-geometry.height // chunks)):
        chunks += 1 if by_channels else threads
    chunks = min(chunks, geometry.height)
    rows = -(-geometry.height // chunks)
    tiles = geometry.tiles(rows).count
    wanted = cut.block or _rule(tiles, columns // parts, geometry)
    block = Block(pixels=min(wanted.pixels, tiles), channels=min(wanted.channels, columns))
    pixels_first = cut.pixels_first
    if pixels_first is None:
        pixels_first = weight_bytes // parts <= _PASS_BYTES
    return Blocking(
        block=block,
        rows=rows,
        chunks=-(-geometry.height // rows),
        parts=min(parts, -(-columns // block.channels)),
        pixels_first=pixels_first and tiles > block.pixels,
    )


def _rule(tiles: int, columns: int, geometry: Geometry) -> Block:
    """Return the register block for so many tiles of pixels and columns of output channels."""
    if columns == 3:
        return Block(pixels=min(tiles, 2) if geometry.halves == 1 else 1, channels=3)
    if tiles == 1 or columns == 1:
        # One side is a single tile: the other side gets the accumulators.
        return Block(pixels=min(tiles, 4), channels=max(min(columns, 4), 1))
    is_heavy = geometry.halves == 2 or geometry.copy_size(1) > 0
    if is_heavy and tiles in (3, _FEW_PIXELS):
        return Block(pixels=tiles, channels=1)
    return Block(pixels=min(tiles, 2), channels=2)
