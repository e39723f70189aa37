"""Blocking of direct convolutions, 1×1 and matrix products included, for every layout.

A register tile is ``width`` pixels of one row times ``vectors`` vectors of output channels. The
reduction runs over (channel block, kernel column, kernel row, channel). No padded copy is made:
pixels whose tap lies in the horizontal padding are omitted from the generated code, and the bounds
of the kernel-row loop exclude rows whose tap lies in the vertical padding. Input values are
broadcast scalars, so that the input may have any layout.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from math import gcd

import numpy as np

from tvm_passes.arrays import own_pages
from tvm_passes.cpu.epilogue import Epilogue
from tvm_passes.cpu.filters import Filters
from tvm_passes.cpu.host import VectorUnit
from tvm_passes.cpu.taps import Axis
from tvm_passes.cpu.tiling import ParallelWork, Tiling, best_tiling, row_tilings, virtual_rows
from tvm_passes.cpu.view import View


@dataclass(frozen=True, kw_only=True)
class Convolution:
    """Shape of a 2-D convolution, or of a matrix product as a 1×1 convolution of height 1.

    A convolution over volumes is one over images in which the rows of all planes follow each other.
    All heights, that of the kernel included, then count rows across planes.
    """

    batch: int
    """Number of images."""
    in_channels: int
    """Input channels of all groups."""
    in_height: int
    """Rows of an input image."""
    in_width: int
    """Pixels of an input row."""
    out_channels: int
    """Output channels of all groups."""
    out_height: int
    """Rows of an output image."""
    out_width: int
    """Pixels of an output row."""
    kernel: tuple[int, int] = (1, 1)
    """Rows and columns of the kernel."""
    strides: tuple[int, int] = (1, 1)
    """Vertical and horizontal stride."""
    dilation: tuple[int, int] = (1, 1)
    """Vertical and horizontal distance between taps."""
    pad_top: int = 0
    """Padding above the input."""
    pad_left: int = 0
    """Padding to the left of the input."""
    groups: int = 1
    """Number of channel groups."""
    planes: tuple[Axis, Axis] | None = None
    """Axis of planes and axis of the rows in a plane, for volumes; None for images."""

    @property
    def row_axes(self) -> tuple[Axis, ...]:
        """Axes that rows count, outermost first."""
        if self.planes is not None:
            return self.planes
        return (
            Axis(
                size=self.in_height,
                results=self.out_height,
                kernel=self.kernel[0],
                stride=self.strides[0],
                dilation=self.dilation[0],
                pad=self.pad_top,
            ),
        )

    @property
    def group_in(self) -> int:
        """Input channels of one group."""
        return self.in_channels // self.groups

    @property
    def group_out(self) -> int:
        """Output channels of one group."""
        return self.out_channels // self.groups

    @property
    def flops(self) -> int:
        """Floating-point operations; a multiply-add is two."""
        pixels = self.batch * self.out_height * self.out_width
        return 2 * pixels * self.out_channels * self.group_in * self.kernel[0] * self.kernel[1]

    @property
    def pointwise(self) -> bool:
        """True if each output pixel reads only the input pixel at its own position."""
        return (
            self.planes is None
            and self.kernel == (1, 1)
            and self.strides == (1, 1)
            and self.pad_top == self.pad_left == 0
            and (self.in_height, self.in_width) == (self.out_height, self.out_width)
        )


@dataclass(frozen=True, kw_only=True)
class _Geometry:
    """Loops of the kernel over pixels; images of pointwise convolutions are cut into other rows."""

    images: int
    """Number of images."""
    rows: int
    """Rows of one image."""
    row: int
    """Pixels of one row."""
    row_stride: Callable[[View], tuple[int, int]]
    """Returns (stride between rows, stride between pixels) of a view, in elements."""


def channel_block(convolution: Convolution, source: View) -> int:
    """Choose the number of input channels of the inner reduction loop.

    It divides the number of channels of a group; the channels are contiguous in `source`.
    """
    channels = convolution.group_in
    if source.chunk != source.block * source.c:
        return gcd(channels, source.block)
    return max(size for size in range(1, min(channels, 32) + 1) if channels % size == 0)


@dataclass(frozen=True, kw_only=True)
class BlockedConvolution:
    """A convolution with its blocking and its packed weights."""

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
    filters: Filters | None = None
    """Positions of weights that are computed at run time; None for constants, packed at build time.
    """
    weights_start: int = 0
    """Offset of the packed weights in their buffer, which several kernels may share."""

    @cached_property
    def channel_block(self) -> int:
        """Input channels of the inner reduction loop."""
        return channel_block(self.convolution, self.source)

    @property
    def channel_vectors(self) -> int:
        """Vectors of output channels in one group."""
        return -(-self.convolution.group_out // self.unit.lanes)

    @property
    def steps(self) -> int:
        """Number of multiply-adds per result."""
        conv = self.convolution
        return conv.group_in * conv.kernel[0] * conv.kernel[1]

    def _mergeable(self, view: View) -> bool:
        """Return whether all pixels of an image have one stride in `view`."""
        return view.h == view.w * self.convolution.out_width

    @cached_property
    def geometry(self) -> _Geometry:
        """Rows and pixels that the kernel loops over."""
        conv = self.convolution
        views = [self.source, self.result, *self.epilogue.views.values()]
        if not conv.pointwise or not all(map(self._mergeable, views)):
            return _Geometry(
                images=conv.batch,
                rows=conv.out_height,
                row=conv.out_width,
                row_stride=lambda view: (view.h, view.w),
            )
        pixels = conv.out_height * conv.out_width
        row = virtual_rows(pixels, self.channel_vectors, self.steps, self.unit)
        return _Geometry(
            images=conv.batch,
            rows=pixels // row,
            row=row,
            row_stride=lambda view: (view.w * row, view.w),
        )

    @cached_property
    def tiling(self) -> Tiling:
        """Register tile and tasks."""
        conv, geometry = self.convolution, self.geometry
        rows = geometry.images * geometry.rows
        work = ParallelWork(
            rows=rows,
            channel_vectors=self.channel_vectors,
            groups=conv.groups,
            row_bytes=4 * conv.in_channels * conv.in_height * conv.in_width * conv.batch // rows,
            weight_bytes=4 * conv.out_channels * self.steps,
        )
        # Threads that have groups of their own need not share rows.
        most = self.unit.threads if rows < self.unit.threads and conv.groups == 1 else 1
        candidates = [
            tiling
            for shares in sorted({1, most})
            for tiling in row_tilings(
                geometry.row, self.channel_vectors, self.steps, self.unit, shares
            )
        ]
        return best_tiling(candidates, work, self.unit)

    @cached_property
    def channel_tiles(self) -> tuple[int, ...]:
        """Vectors of each tile of a group's output channels; the last may be narrower."""
        vectors = self.tiling.vectors
        full, rest = divmod(self.channel_vectors, vectors)
        return (vectors,) * full + ((rest,) if rest else ())

    def pack(self, weights: np.ndarray) -> np.ndarray:
        """Pack weights (O, I/groups, KH, KW) in the order in which the kernel reads them.

        The result is flat. Each group and tile of output channels is (channel block, column, row,
        channel, lane). Channels beyond the last are zero.
        """
        conv, lanes = self.convolution, self.unit.lanes
        block = self.channel_block
        kernel_h, kernel_w = conv.kernel
        blocked = weights.reshape(
            conv.groups, conv.group_out, conv.group_in // block, block, kernel_h, kernel_w
        ).transpose(0, 2, 5, 4, 3, 1)
        each, first = conv.group_in * kernel_h * kernel_w, 0
        padded = self.channel_vectors * lanes
        packed = own_pages((conv.groups, padded * each), weights.dtype)
        for vectors in self.channel_tiles:
            last = first + vectors * lanes
            tile = packed[:, first * each : last * each].reshape(
                *blocked.shape[:-1], vectors * lanes
            )
            some = blocked[..., first:last]
            tile[..., : some.shape[-1]] = some
            first = last
        return packed.reshape(-1)

    @property
    def prefetches(self) -> bool:
        """True if the next tile of weights is prefetched while the current one is used.

        Without prefetching, a tile's first pass waits for memory, and the following ones leave it
        idle.
        """
        return 4 * self.packed_size > self.unit.l2_bytes // 8

    @property
    def hints(self) -> Mapping[str, float]:
        """Blocking, as features for cost models."""
        tiling = self.tiling
        return {
            "kernel_direct": 1.0,
            "cycles": tiling.cycles,
            "tasks": tiling.tasks,
            "tile_width": len(tiling.widths) and self.geometry.row / len(tiling.widths),
            "tile_vectors": tiling.vectors,
            "task_rows": tiling.rows / tiling.shares,
            "row": self.geometry.row,
            "channel_block": self.channel_block,
            "lanes_filled": self.convolution.group_out / (self.channel_vectors * self.unit.lanes),
            **({"repacked_bytes": 4.0 * self.packed_size} if self.filters else {}),
        }

    @property
    def packed_size(self) -> int:
        """Number of elements of the packed weights."""
        return self.convolution.groups * self.channel_vectors * self.unit.lanes * self.steps
