"""A convolution or matrix product on tiles: geometry, blocking and packed weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import ml_dtypes
import numpy as np
from tvm import tirx

from tvm_passes.amx.blocking import Blocking, Cut, choose
from tvm_passes.amx.copies import geometry_of
from tvm_passes.amx.geometry import Geometry
from tvm_passes.amx.tiles import LANES, ROW_BYTES, ROWS
from tvm_passes.arrays import own_pages
from tvm_passes.cpu.convolution import Convolution
from tvm_passes.cpu.emit import TirExpr
from tvm_passes.cpu.epilogue import Epilogue
from tvm_passes.cpu.host import VectorUnit
from tvm_passes.cpu.view import View

TILE = ROWS * ROW_BYTES // 2
"""Elements of a packed tile of weights."""


@dataclass(frozen=True, kw_only=True)
class TiledProduct:
    """A convolution with its geometry and blocking."""

    convolution: Convolution
    """Shape of the convolution."""
    source: View
    """Memory layout of the source."""
    result: View
    """Memory layout of the result."""
    unit: VectorUnit
    """Vector instructions and threads of the machine."""
    epilogue: Epilogue
    """Operators that are applied to the sums."""
    cut: Cut
    """Departures from the rules of blocking."""
    groups: int = 1
    """Number of channel groups; weights between different groups are zero."""

    @cached_property
    def geometry(self) -> Geometry:
        """Pixels of each row of the tiles."""
        geometry = geometry_of(self.convolution, self.source)
        assert geometry is not None, "asked before"
        return geometry

    @cached_property
    def blocking(self) -> Blocking:
        """Blocks and tasks."""
        return choose(self.geometry, self.convolution.out_channels, self.cut, self.unit.threads)

    @property
    def columns(self) -> int:
        """Number of output channel tiles, in whole blocks."""
        size = self.blocking.block.channels
        return -(-self.convolution.out_channels // (LANES * size)) * size

    @property
    def width(self) -> int:
        """Number of output channels of a block."""
        return self.blocking.block.channels * LANES

    def first(self, number: TirExpr) -> TirExpr:
        """Return the first input channel block that block `number` of output channels reads."""
        if self.blocks == self.geometry.blocks:
            return 0
        return tirx.min(self._lowest(number), self.geometry.blocks - self.blocks)

    def _lowest(self, number: TirExpr) -> TirExpr:
        conv = self.convolution
        group = number * self.width // (conv.out_channels // self.groups)
        return group * (conv.in_channels // self.groups) // self.geometry.depth

    @cached_property
    def blocks(self) -> int:
        """Number of input channel blocks per output channel block: the maximum over all of them."""
        conv = self.convolution
        if self.geometry.blocks == 1:
            return 1
        group_in, group_out = (n // self.groups for n in (conv.in_channels, conv.out_channels))
        seen = []
        for number in range(self.columns * LANES // self.width):
            last = min((number + 1) * self.width, conv.out_channels) - 1
            highest = ((last // group_out + 1) * group_in - 1) // self.geometry.depth
            seen.append(highest - self._lowest(number) + 1)
        return max(seen)

    @property
    def steps(self) -> int:
        """Number of reduction steps over these blocks."""
        return self.geometry.steps // self.geometry.blocks * self.blocks

    @property
    def packed_size(self) -> int:
        """Number of elements of the packed weights."""
        return self.columns * self.steps * self.geometry.halves * TILE

    def pack(self, weights: np.ndarray) -> np.ndarray:
        """Pack weights (O, I, KH, KW) as bfloat16 tiles in the order in which they are loaded.

        The result is flat. Each block of output channels is (step, tile of channels, half, pair of
        inputs, channel, one of the pair).
        """
        size, halves = self.blocking.block.channels, self.geometry.halves
        blocks = self.columns // size
        packed = own_pages(
            (blocks, self.steps, size, halves, ROWS, LANES, 2), np.dtype(ml_dtypes.bfloat16)
        )
        for number, block in enumerate(packed):
            pairs = self._pairs(weights[number * self.width : (number + 1) * self.width], number)
            high = pairs.astype(ml_dtypes.bfloat16)
            block[:, :, 0] = high
            if halves == 2:
                block[:, :, 1] = pairs - high.astype(weights.dtype)
        return packed.reshape(-1)

    def _pairs(self, weights: np.ndarray, number: int) -> np.ndarray:
        """Return the weights of block `number` of output channels.

        Their axes are (step, tile of channels, pair of inputs, channel, one of the pair).
        """
        geometry = self.geometry
        steps = np.zeros((self.width, geometry.steps, 2 * ROWS), weights.dtype)
        arranged = geometry.arrange(weights)
        steps[: len(arranged), :, : geometry.depth] = arranged
        first = int(self.first(number)) * (geometry.steps // geometry.blocks)
        seen = steps[:, first : first + self.steps]
        split = seen.reshape(self.blocking.block.channels, LANES, self.steps, ROWS, 2)
        return split.transpose(2, 0, 3, 1, 4)

    @property
    def hints(self) -> Mapping[str, float]:
        """Blocking, as features for cost models."""
        blocking, geometry = self.blocking, self.geometry
        tiles = geometry.tiles(blocking.rows)
        tasks = geometry.images * blocking.chunks
        return {
            "kernel_amx": 1.0,
            "products": float(
                tasks * tiles.count * self.columns * self.steps * (2 * geometry.halves - 1)
            ),
            "tile_pixels": float(blocking.block.pixels),
            "tile_channels": float(blocking.block.channels),
            "tile_rows": float(tiles.rows),
            "tasks": float(tasks * blocking.parts),
            "parts": float(blocking.parts),
            "copied": float(geometry.copy_size(blocking.rows)),
            "pixels_first": float(blocking.pixels_first),
        }
