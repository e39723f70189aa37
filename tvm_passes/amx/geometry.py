"""A convolution as products of tiles: which rows of the left operand are which pixels, and where they lie.

Pixels of the result are numbered so that from one to the next what they read moves by a constant stride, which is what a
tile load can follow. There are three kinds of left operand:

- :class:`InPlace`: 1×1 kernels at stride 1 read the source as it lies.
- :class:`~tvm_passes.amx.copies.Blocks`: where channels fill blocks of 32, others read a copy of the rows in such blocks, with zeros for the
  padding. Pixels are numbered through the zeros, so that tiles run on from row to row; what is computed for the zeros is
  thrown away. A strided kernel's copy is sorted by the remainders of the coordinates: then its stride is one.
- :class:`~tvm_passes.amx.copies.Runs`: where they do not, a row of a tile is the run of all channels under a whole kernel row.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from tvm import tirx

from tvm_passes.amx.tiles import DEPTH, ROWS
from tvm_passes.cpu import emit
from tvm_passes.cpu.convolution import Convolution
from tvm_passes.cpu.emit import Buffer, TirExpr
from tvm_passes.cpu.view import View

_COPY_BYTES = 768 << 10
"""What the copy of a task's rows may take at most: it shall stay in the second-level cache."""

Step = Callable[[TirExpr, TirExpr], None]
"""Emits one step of the reduction, given the offset of its operand from a pixel's first, and its number."""


@dataclass(frozen=True, kw_only=True)
class Geometry(ABC):
    """One convolution with its source; rows are rows of results."""

    convolution: Convolution
    source: View

    @property
    def halves(self) -> int:
        """2 where elements come as high and low halves."""
        return 2 if self.source.low else 1

    # The pixels

    @property
    def images(self) -> int:
        """Images that tasks are cut from."""
        return self.convolution.batch

    @property
    def height(self) -> int:
        """Rows of one image."""
        return self.convolution.out_height

    @property
    def width(self) -> int:
        """Pixels of a row."""
        return self.convolution.out_width

    @property
    def pitch(self) -> int:
        """Numbers of pixels from one row to the next, those of zeros included."""
        return self.width

    @property
    def spans_images(self) -> bool:
        """Whether pixels are numbered through all images."""
        return False

    @property
    def by_rows(self) -> bool:
        """Whether a tile stays within a row of pixels."""
        return False

    @property
    @abstractmethod
    def pixel_stride(self) -> int:
        """Elements from what one pixel reads to what the next one reads."""

    @property
    def line_stride(self) -> int:
        """The same from row to row, where tiles stay within rows."""
        return self.pitch * self.pixel_stride

    def tiles(self, rows: int) -> Tiles:
        """How `rows` rows are cut into tiles."""
        pixels = self.width if self.by_rows else (rows - 1) * self.pitch + self.width
        return Tiles(
            geometry=self, rows=min(pixels, ROWS), pixels=pixels, lines=rows if self.by_rows else 1
        )

    # The reduction

    @property
    @abstractmethod
    def depth(self) -> int:
        """Elements that one step sums over."""

    @property
    @abstractmethod
    def steps(self) -> int:
        """Steps of the reduction."""

    @property
    def blocks(self) -> int:
        """Blocks of input channels that steps come in; one where they cannot be told apart."""
        return 1

    @abstractmethod
    def reduce(self, rows: int, step: Step, first: TirExpr, count: int) -> None:
        """Emit the loops over the steps of `count` blocks from `first` on, for a task of so many rows."""

    @abstractmethod
    def arrange(self, weights: np.ndarray) -> np.ndarray:
        """Weights (O, I, KH, KW) as (O, steps, depth); those that an earlier step took are zero."""

    # The copy

    def copy_size(self, rows: int) -> int:
        """Elements of the copy for so many rows; 0 where there is none."""
        return 0

    def low(self, rows: int) -> int:
        """Where in the left operand the low half of an element lies, seen from its high half."""
        return self.source.low

    def copy(self, source: Buffer, target: Buffer, image: TirExpr, row: TirExpr, rows: int) -> None:
        """Emit the copy of what `rows` rows from `row` on read."""
        raise NotImplementedError

    def fits(self, rows: int) -> bool:
        """Whether the copy for so many rows stays in the cache."""
        return 2 * self.copy_size(rows) <= _COPY_BYTES


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
        """Where in the left operand that lies which a pixel reads first."""
        return line * self.geometry.line_stride + pixel * self.geometry.pixel_stride


@dataclass(frozen=True, kw_only=True)
class Run:
    """Elements that lie next to each other, cut into steps; the last one starts early where they do not fit evenly."""

    size: int

    @property
    def depth(self) -> int:
        """Elements of a step."""
        return min(self.size, DEPTH)

    @property
    def steps(self) -> int:
        """How many there are."""
        return -(-self.size // self.depth)

    def start(self, step: TirExpr) -> TirExpr:
        """Where a step starts."""
        if self.size % self.depth == 0:
            return step * self.depth
        return tirx.min(step * self.depth, self.size - self.depth)

    def arrange(self, runs: np.ndarray) -> np.ndarray:
        """(..., size) as (..., steps, depth)."""
        cut = np.zeros((*runs.shape[:-1], self.steps, self.depth), runs.dtype)
        for step in range(self.steps):
            first = step * self.depth
            start = min(first, self.size - self.depth)
            cut[..., step, first - start :] = runs[..., first : start + self.depth]
        return cut


@dataclass(frozen=True, kw_only=True)
class InPlace(Geometry):
    """1×1 kernels at stride 1, and matrix products."""

    @property
    def is_blocked(self) -> bool:
        """Whether the source's channels come in blocks, each a step deep."""
        return self.source.block < self.convolution.in_channels

    @property
    def spans_images(self) -> bool:
        """Images follow each other unless channels lie between them: in blocks, or in the planes of single pixels."""
        conv, source = self.convolution, self.source
        follow = conv.batch == 1 or source.n == source.h * conv.in_height
        return follow and not self.is_blocked

    @property
    def images(self) -> int:
        """One where pixels are numbered through all of them."""
        return 1 if self.spans_images else self.convolution.batch

    @property
    def height(self) -> int:
        """Every pixel is a row."""
        conv = self.convolution
        return conv.batch // self.images * conv.out_height * conv.out_width

    @property
    def width(self) -> int:
        """Of one pixel."""
        return 1

    @property
    def pixel_stride(self) -> int:
        """That of the source."""
        return self.source.w

    @property
    def _run(self) -> Run:
        return Run(size=self.convolution.in_channels)

    @property
    def depth(self) -> int:
        """Channels of a step."""
        return self._run.depth

    @property
    def steps(self) -> int:
        """Blocks of channels."""
        return self._run.steps

    @property
    def blocks(self) -> int:
        """Each a step."""
        return self.steps

    def reduce(self, rows: int, step: Step, first: TirExpr, count: int) -> None:
        """One loop over the channels."""
        with emit.serial(count) as number:
            block = first + number
            step(block * self.source.chunk if self.is_blocked else self._run.start(block), number)

    def arrange(self, weights: np.ndarray) -> np.ndarray:
        """One run of channels."""
        return self._run.arrange(weights[:, :, 0, 0])
