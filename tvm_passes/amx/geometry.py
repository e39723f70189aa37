"""A convolution as products of tiles: which rows of the left operand are which pixels, and where they lie.

A row of the left operand is a run of input elements that lie next to each other: the taps of one kernel row. Pixels are
numbered so that from one to the next the run moves by a constant stride, which is what a tile load can follow:

- *in place*: 1×1 kernels at stride 1 read the tensor as it lies, images that follow each other in one go;
- *flat*: other kernels at stride 1 read a copy of the rows with zeros between them. Pixels are numbered through the
  zeros, so that tiles run on from row to row; what is computed for the zeros is thrown away;
- *by rows*: strided kernels read such a copy too, but a tile stays within one row of pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from tvm import tirx

from tvm_passes.amx.tiles import DEPTH, ROWS
from tvm_passes.cpu.convolution import Convolution
from tvm_passes.cpu.emit import TirExpr
from tvm_passes.cpu.view import View

_COPY_BYTES = 512 << 10
"""What the copy of a task's rows may take at most: it shall stay in the second-level cache."""


@dataclass(frozen=True, kw_only=True)
class Geometry:
    """One convolution with its source."""

    convolution: Convolution
    source: View

    @property
    def halves(self) -> int:
        """2 where elements come as high and low halves."""
        return 2 if self.source.low else 1

    @cached_property
    def in_place(self) -> bool:
        """Whether tiles are loaded from the source itself."""
        conv = self.convolution
        channels = conv.in_channels
        fits = self.is_blocked or channels >= DEPTH or channels % 2 == 0
        return conv.pointwise and fits and self.source.h == self.source.w * conv.in_width

    @property
    def is_blocked(self) -> bool:
        """Whether the source's channels come in blocks, each as deep as a product."""
        return self.source.block < self.convolution.in_channels

    @property
    def spans_images(self) -> bool:
        """Whether pixels are numbered through all images."""
        return self.in_place and not self.is_blocked

    @property
    def by_rows(self) -> bool:
        """Whether a tile stays within a row of pixels."""
        return self.convolution.strides != (1, 1) and not self.picks

    @cached_property
    def picks(self) -> bool:
        """Whether the copy holds only the pixels that a strided 1×1 kernel reads."""
        conv = self.convolution
        inside = all(
            (out - 1) * stride < size
            for out, stride, size in (
                (conv.out_height, conv.strides[0], conv.in_height),
                (conv.out_width, conv.strides[1], conv.in_width),
            )
        )
        unpadded = conv.pad_top == conv.pad_left == 0
        return not self.in_place and conv.kernel == (1, 1) and unpadded and inside

    # The reduction

    @cached_property
    def channels(self) -> int:
        """Elements from one pixel of a kernel row to the next; in a copy, made even where a run would be odd."""
        conv = self.convolution
        run = conv.kernel[1] * conv.in_channels
        return conv.in_channels + int(run < DEPTH and run % 2)

    @property
    def run(self) -> int:
        """Elements of a kernel row."""
        return self.convolution.kernel[1] * self.channels

    @property
    def depth(self) -> int:
        """Elements that one product sums over."""
        return min(self.run, DEPTH)

    @property
    def steps(self) -> int:
        """Products per kernel row; the last one starts early where the run is no multiple of their depth."""
        return -(-self.run // self.depth)

    def start(self, step: TirExpr) -> TirExpr:
        """Where in the run a step starts."""
        if self.in_place and self.is_blocked:
            return step * self.source.chunk
        if self.run % self.depth == 0:
            return step * self.depth
        return tirx.min(step * self.depth, self.run - self.depth)

    # The pixels

    @property
    def images(self) -> int:
        """Images that tasks are cut from."""
        return 1 if self.spans_images else self.convolution.batch

    @property
    def height(self) -> int:
        """Rows of one image; in place every pixel is a row."""
        conv = self.convolution
        if not self.in_place:
            return conv.out_height
        return (conv.batch // self.images) * conv.out_height * conv.out_width

    @property
    def width(self) -> int:
        """Pixels of a row."""
        return 1 if self.in_place else self.convolution.out_width

    @cached_property
    def pitch(self) -> int:
        """Pixels of the left operand from one row to the next, zeros included."""
        conv = self.convolution
        if self.in_place or self.picks:
            return self.width
        last = (conv.out_width - 1) * conv.strides[1] + conv.kernel[1] - 1 - conv.pad_left
        padded = conv.in_width + max(conv.pad_left, last - conv.in_width + 1, 0)
        return padded if self.by_rows else max(padded, conv.out_width)

    @property
    def pixel_stride(self) -> int:
        """Elements from the run of one pixel to that of the next."""
        if self.in_place:
            return self.source.w
        return self.channels * (1 if self.picks else self.convolution.strides[1])

    @property
    def row_stride(self) -> int:
        """Elements from one row of the left operand to the next."""
        return self.pitch * (self.source.w if self.in_place else self.channels)

    def copied_rows(self, rows: int) -> int:
        """Rows of the copy for `rows` rows of results."""
        conv = self.convolution
        if self.picks:
            return rows
        return (rows - 1) * conv.strides[0] + (conv.kernel[0] - 1) * conv.dilation[0] + 1

    def copy_size(self, rows: int) -> int:
        """Elements of the copy, of one half, for `rows` rows of results."""
        margin = 0 if self.picks else self.convolution.kernel[1] + self.convolution.pad_left
        return self.copied_rows(rows) * self.row_stride + margin * self.channels

    def tiles(self, rows: int) -> Tiles:
        """How `rows` rows of results are cut into tiles."""
        width = self.width if self.by_rows else (rows - 1) * self.pitch + self.width
        return Tiles(
            geometry=self, rows=min(width, ROWS), pixels=width, lines=rows if self.by_rows else 1
        )

    def fits(self, rows: int) -> bool:
        """Whether the copy for so many rows of results stays in the cache."""
        return self.in_place or 2 * self.halves * self.copy_size(rows) <= _COPY_BYTES


@dataclass(frozen=True, kw_only=True)
class Tiles:
    """The tiles of some rows of results: `lines` times `pixels`, a tile being `rows` of these."""

    geometry: Geometry
    rows: int
    pixels: int
    lines: int

    @property
    def per_line(self) -> int:
        """Tiles of a line; the last one overlaps the one before it where they do not fit evenly."""
        return -(-self.pixels // self.rows)

    @property
    def count(self) -> int:
        """All of them."""
        return self.lines * self.per_line

    def first(self, tile: TirExpr) -> tuple[TirExpr, TirExpr]:
        """Line, and pixel within it, at which a tile starts."""
        line, place = (
            (0, tile) if self.lines == 1 else (tile // self.per_line, tile % self.per_line)
        )
        if self.pixels % self.rows == 0:
            return line, place * self.rows
        return line, tirx.min(place * self.rows, self.pixels - self.rows)

    def offset(self, line: TirExpr, pixel: TirExpr) -> TirExpr:
        """Where in the left operand a pixel's run for the first kernel row starts."""
        geometry = self.geometry
        stride = geometry.convolution.strides[0] * geometry.row_stride
        return line * stride + pixel * geometry.pixel_stride
