"""How a product is cut: into blocks that share loaded tiles, and into tasks for threads."""

from __future__ import annotations

from dataclasses import dataclass

from tvm_passes.amx.geometry import Geometry
from tvm_passes.amx.tiles import LANES, REGISTERS

_PASS_BYTES = 128 << 10
"""Weights up to this size are read again for every block of pixels; larger ones are passed over once, and the pixels
are read again: what is read again has to stay in the second-level cache."""
_SHARED = 2
"""Threads share the weights where these are so many times the source: half of what each reads of it comes from another
core's cache, which is slower than where the weights come from."""
_FEW_PIXELS = 4
"""Tiles of pixels that one block takes where there are many weights to each: then every weight is loaded once."""


@dataclass(frozen=True, kw_only=True)
class Block:
    """Tiles of a register block: `pixels` times `channels` accumulators, the rest of the registers for operands."""

    pixels: int
    channels: int

    @property
    def accumulators(self) -> int:
        """Registers that hold sums."""
        return self.pixels * self.channels

    def operands(self, halves: int) -> tuple[range, range]:
        """Registers of pixels, and of weights: the shorter side stays, the longer one passes by."""
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
    by_channels: bool | None = None
    """Whether threads share the output channels, rather than the rows."""
    pixels_first: bool | None = None
    """See :class:`Blocking`."""


@dataclass(frozen=True, kw_only=True)
class Blocking:
    """The cut of one product."""

    block: Block
    rows: int
    """Rows of results of a task."""
    chunks: int
    """Tasks that the rows of an image are divided over."""
    parts: int
    """Tasks that the output channels are divided over."""
    pixels_first: bool
    """Whether each block of pixels passes over all weights of its task, rather than each block of weights over all
    pixels."""


def choose(geometry: Geometry, channels: int, cut: Cut, threads: int) -> Blocking:
    """Block a product of `channels` output channels for so many `threads`, by the rules and a `cut`."""
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
    if columns == 3:
        return Block(pixels=min(tiles, 2) if geometry.halves == 1 else 1, channels=3)
    if tiles == 1 or columns == 1:
        # One side is a single tile: the other gets the accumulators.
        return Block(pixels=min(tiles, 4), channels=max(min(columns, 4), 1))
    is_heavy = geometry.halves == 2 or geometry.copy_size(1) > 0
    if is_heavy and tiles in (3, _FEW_PIXELS):
        return Block(pixels=tiles, channels=1)
    return Block(pixels=min(tiles, 2), channels=2)
