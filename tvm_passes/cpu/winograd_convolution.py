"""3×3 convolution of stride 1 by Winograd's F(4×4, 3×3) or F(2×2, 3×3).

There are three stages: transform tiles of the input, compute one matrix product per point of a
tile, transform back with the epilogue. :class:`ConvolutionKernel` computes the products, as a 1×1
convolution with one group per point. Either each task takes a block of tiles through all stages,
with its data in the second-level cache. Or all threads share each stage, if the weights are too
large to be streamed for each block.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from tvm_passes.arrays import own_pages
from tvm_passes.cpu.convolution import Convolution
from tvm_passes.cpu.convolution_kernel import ConvolutionKernel
from tvm_passes.cpu.epilogue import Epilogue
from tvm_passes.cpu.host import VectorUnit
from tvm_passes.cpu.view import View
from tvm_passes.cpu.winograd_matrices import TAPS, WinogradMatrices, winograd_matrices

CHANNEL_BLOCK = 16
"""Channels of a block in the intermediate tensors."""


PACKED_AT_ONCE = 32
"""Number of output channels whose weights are transformed together.

This bounds the memory of the transform: its float64 results take up to eight times as much as the
weights.
"""


def is_eligible(convolution: Convolution) -> bool:
    """Return whether these kernels compute a convolution of this shape."""
    conv = convolution
    return (
        conv.kernel == (TAPS, TAPS)
        and conv.strides == conv.dilation == (1, 1)
        and conv.groups == 1
        and conv.in_channels % CHANNEL_BLOCK == 0
        and conv.out_channels % CHANNEL_BLOCK == 0
    )


@dataclass(frozen=True, kw_only=True)
class WinogradConvolution:
    """A convolution by Winograd's algorithm: its blocks of tiles, and its packed weights."""

    convolution: Convolution
    """Shape of the convolution."""
    outputs: int
    """Outputs per tile and axis."""
    source: View
    """Memory layout of the source."""
    result: View
    """Memory layout of the result."""
    unit: VectorUnit
    """Vector instructions and threads of the machine."""
    epilogue: Epilogue
    """Operators that are applied to the results."""

    @cached_property
    def matrices(self) -> WinogradMatrices:
        """Matrices of F(m, 3)."""
        return winograd_matrices(self.outputs)

    @property
    def points(self) -> int:
        """Products per tile and pair of channels."""
        return self.matrices.points**2

    @property
    def tile_grid(self) -> tuple[int, int]:
        """Tiles of an image, vertically and horizontally."""
        m = self.matrices.outputs
        return -(-self.convolution.out_height // m), -(-self.convolution.out_width // m)

    @property
    def tiles(self) -> int:
        """Tiles of the whole batch."""
        down, across = self.tile_grid
        return self.convolution.batch * down * across

    @cached_property
    def fused(self) -> bool:
        """True if each task takes its tiles through all stages."""
        return self._fused_traffic <= self._staged_traffic

    @property
    def _weight_bytes(self) -> int:
        """Size of the transformed weights, bytes."""
        return 4 * self.points * self.convolution.in_channels * self.convolution.out_channels

    @property
    def _tile_bytes(self) -> int:
        """Size of a tile's intermediate data, bytes."""
        channels = self.convolution.in_channels + self.convolution.out_channels
        return 4 * self.points * channels

    def _blocks(self, budget: int) -> int:
        """Return the number of blocks whose intermediate data fit `budget` bytes."""
        per_block = max(budget // self._tile_bytes, 1)
        blocks = -(-self.tiles // per_block)
        threads = self.unit.threads
        return min(-(-blocks // threads) * threads, self.tiles)

    @property
    def _fused_traffic(self) -> float:
        """Estimated memory traffic if each task takes its tiles through all stages, bytes."""
        threads, blocks = self.unit.threads, self._blocks(self.unit.l2_bytes)
        passes = threads if self._weight_bytes <= self.unit.l2_bytes // 2 else blocks
        few = max(12 / -(-self.tiles // blocks), 1.0)
        return passes * self._weight_bytes * few

    @property
    def _staged_traffic(self) -> float:
        """Estimated memory traffic if all threads share each stage, bytes."""
        blocks = -(-self.tiles * self._tile_bytes // self._staged_budget)
        return self._weight_bytes * blocks + 2.0 * self.tiles * self._tile_bytes

    @property
    def _staged_budget(self) -> int:
        """Maximum size of the intermediate data of a shared block, bytes."""
        return 16 * self.unit.l2_bytes

    @cached_property
    def block(self) -> int:
        """Tiles that pass a stage together."""
        if self.fused:
            return -(-self.tiles // self._blocks(self.unit.l2_bytes))
        blocks = -(-self.tiles * self._tile_bytes // self._staged_budget)
        return -(-self.tiles // blocks)

    def _scratch_view(self) -> View:
        """Return the view (point, channel block, tile, channel): a 1×1 convolution of tiles."""
        row = self.block * CHANNEL_BLOCK
        return View(n=0, block=CHANNEL_BLOCK, chunk=row, c=1, h=row, w=CHANNEL_BLOCK)

    @cached_property
    def product(self) -> ConvolutionKernel:
        """Matrix products of a block of tiles."""
        conv, points = self.convolution, self.points
        shape = Convolution(
            batch=1,
            in_channels=points * conv.in_channels,
            in_height=1,
            in_width=self.block,
            out_channels=points * conv.out_channels,
            out_height=1,
            out_width=self.block,
            groups=points,
        )
        anchor = self.epilogue.anchor
        assert anchor is not None
        plain = Epilogue(anchor=anchor, result=anchor, views={}, uses={})
        unit = replace(self.unit, threads=1) if self.fused else self.unit
        view = self._scratch_view()
        return ConvolutionKernel(
            convolution=shape, source=view, result=view, unit=unit, epilogue=plain
        )

    @property
    def hints(self) -> Mapping[str, float]:
        """Blocking, as features for cost models."""
        m = self.matrices.outputs
        pixels = self.convolution.batch * self.convolution.out_height * self.convolution.out_width
        blocks = -(-self.tiles // self.block)
        rounds = -(-blocks // self.unit.threads) if self.fused else blocks
        return {
            **{
                name: value for name, value in self.product.hints.items() if name != "kernel_direct"
            },
            "kernel_winograd": 1.0,
            "outputs": m,
            "fused": float(self.fused),
            "cycles": self.product.tiling.cycles * rounds,
            "tasks": blocks,
            "tile_block": self.block,
            "pixels_used": pixels / (self.tiles * m * m),
        }

    @property
    def packed_size(self) -> int:
        """Number of elements of the packed weights."""
        return self.product.packed_size

    def pack(self, weights: np.ndarray) -> np.ndarray:
        """Transform weights (O, I, 3, 3) in float64, and pack them in the products' order."""
        conv, filters = self.convolution, self.matrices.filter
        side = len(filters)
        by_point = own_pages((side, side, conv.out_channels, conv.in_channels), "float32")
        for first in range(0, conv.out_channels, PACKED_AT_ONCE):
            some = slice(first, first + PACKED_AT_ONCE)
            transformed = filters @ weights[some].astype("float64") @ filters.T
            by_point[:, :, some] = transformed.transpose(2, 3, 0, 1)
        rows = self.points * conv.out_channels
        return self.product.pack(by_point.reshape(rows, conv.in_channels, 1, 1))
