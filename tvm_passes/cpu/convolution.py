"""Blocking of direct convolutions, 1×1 and matrix products included, for every layout.

A register tile is ``width`` pixels of one row times ``vectors`` vectors of output channels. The reduction runs over
(channel block, kernel column, kernel row, channel); pixels whose tap lies in the horizontal padding are left out when the
code is generated, rows whose tap lies in the vertical padding by the bounds of the kernel-row loop, so no padded copy is
made. Input values are broadcast scalars, so the input may lie in any layout.
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
    """Shape of a 2-D convolution; of a matrix product where the kernel is 1×1 and the height 1.

    One over volumes is an image whose rows are those of all planes: heights and the kernel's height count them together.
    """

    batch: int
    in_channels: int
    in_height: int
    in_width: int
    out_channels: int
    out_height: int
    out_width: int
    kernel: tuple[int, int] = (1, 1)
    strides: tuple[int, int] = (1, 1)
    dilation: tuple[int, int] = (1, 1)
    pad_top: int = 0
    pad_left: int = 0
    groups: int = 1
    planes: tuple[Axis, Axis] | None = None
    """Of volumes: the axis of planes, and that of the rows of one plane."""

    @property
    def row_axes(self) -> tuple[Axis, ...]:
        """The axes that rows count, outermost first."""
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
        """Input channels of a group."""
        return self.in_channels // self.groups

    @property
    def group_out(self) -> int:
        """Output channels of a group."""
        return self.out_channels // self.groups

    @property
    def flops(self) -> int:
        """Floating-point operations; a multiply-add is two."""
        pixels = self.batch * self.out_height * self.out_width
        return 2 * pixels * self.out_channels * self.group_in * self.kernel[0] * self.kernel[1]

    @property
    def pointwise(self) -> bool:
        """Whether each output pixel reads just the input pixel at its place."""
        return (
            self.planes is None
            and self.kernel == (1, 1)
            and self.strides == (1, 1)
            and self.pad_top == self.pad_left == 0
            and (self.in_height, self.in_width) == (self.out_height, self.out_width)
        )


@dataclass(frozen=True, kw_only=True)
class _Geometry:
    """A convolution as the kernel sees it: pointwise ones are cut into rows of the best length."""

    images: int
    rows: int
    """Rows of one image."""
    row: int
    """Pixels of a row."""
    row_stride: Callable[[View], tuple[int, int]]
    """(stride between rows, stride between pixels) of a view."""


def channel_block(convolution: Convolution, source: View) -> int:
    """Input channels that the inner reduction loop runs over, contiguous in `source` and a divisor of a group's."""
    channels = convolution.group_in
    if source.chunk != source.block * source.c:
        return gcd(channels, source.block)
    return max(size for size in range(1, min(channels, 32) + 1) if channels % size == 0)


@dataclass(frozen=True, kw_only=True)
class BlockedConvolution:
    """A convolution with its blocking, and its packed weights."""

    convolution: Convolution
    source: View
    result: View
    unit: VectorUnit
    epilogue: Epilogue
    filters: Filters | None = None
    """Where weights lie that are computed at run time; None for constants, which are packed beforehand."""
    weights_start: int = 0
    """Where the packed weights begin in their buffer, which several kernels may share."""

    @cached_property
    def channel_block(self) -> int:
        """Input channels of the inner reduction loop."""
        return channel_block(self.convolution, self.source)

    @property
    def channel_vectors(self) -> int:
        """Vectors of output channels of one group."""
        return -(-self.convolution.group_out // self.unit.lanes)

    @property
    def steps(self) -> int:
        """Length of the reduction."""
        conv = self.convolution
        return conv.group_in * conv.kernel[0] * conv.kernel[1]

    def _mergeable(self, view: View) -> bool:
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
        """The register tile and the tasks."""
        conv, geometry = self.convolution, self.geometry
        rows = geometry.images * geometry.rows
        work = ParallelWork(
            rows=rows,
            channel_vectors=self.channel_vectors,
            groups=conv.groups,
            row_bytes=4 * conv.in_channels * conv.in_height * conv.in_width * conv.batch // rows,
            weight_bytes=4 * conv.out_channels * self.steps,
        )
        candidates = row_tilings(geometry.row, self.channel_vectors, self.steps, self.unit)
        return best_tiling(candidates, work, self.unit)

    @cached_property
    def channel_tiles(self) -> tuple[int, ...]:
        """Vectors of each tile of a group's output channels; the last may be narrower."""
        vectors = self.tiling.vectors
        full, rest = divmod(self.channel_vectors, vectors)
        return (vectors,) * full + ((rest,) if rest else ())

    def pack(self, weights: np.ndarray) -> np.ndarray:
        """Weights (O, I/groups, KH, KW) in the order in which the kernel reads them, as one flat array.

        Per group and tile of output channels: (channel block, column, row, channel, lane); channels beyond the last are
        zero.
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
        """Whether to fetch the next tile of weights while computing with the present one.

        Otherwise a tile's first pass waits for memory, and the following ones leave the memory idle.
        """
        return 4 * self.packed_size > self.unit.l2_bytes // 8

    @property
    def hints(self) -> Mapping[str, float]:
        """The blocking, for cost models."""
        tiling = self.tiling
        return {
            "kernel_direct": 1.0,
            "cycles": tiling.cycles,
            "tasks": tiling.tasks,
            "tile_width": len(tiling.widths) and self.geometry.row / len(tiling.widths),
            "tile_vectors": tiling.vectors,
            "task_rows": tiling.rows,
            "row": self.geometry.row,
            "channel_block": self.channel_block,
            "lanes_filled": self.convolution.group_out / (self.channel_vectors * self.unit.lanes),
            **({"repacked_bytes": 4.0 * self.packed_size} if self.filters else {}),
        }

    @property
    def packed_size(self) -> int:
        """Elements of the packed weights."""
        return self.convolution.groups * self.channel_vectors * self.unit.lanes * self.steps
