"""Geometry of a convolution as products of tiles: the pixels of each row of the left operand.

Pixels of the result are numbered so that their source elements are a constant stride apart, which a
tile load can follow. There are three kinds of left operand:

- :class:`InPlace`: 1×1 kernels at stride 1 read the source itself.
- :class:`~tvm_passes.amx.copies.Blocks`: other kernels whose channels fill blocks of 32 read a copy
  of the rows in such blocks, with zeros for the padding. The zeros have pixel numbers too, so that
  tiles continue from row to row; results for them are discarded. The copy of a strided kernel is
  sorted by the remainders of the coordinates, which makes its stride one.
- :class:`~tvm_passes.amx.copies.Runs`: otherwise, a row of a tile is the run of all channels under
  a whole kernel row.
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
"""Maximum size of the copy of a task's rows, bytes; it must stay in the second-level cache."""

Step = Callable[[TirExpr, TirExpr], None]
"""Emits one step of the reduction, given the offset of its operand from a pixel's first element,
and the index of the step.
"""


@dataclass(frozen=True, kw_only=True)
class Geometry(ABC):
    """Geometry of one convolution and its source; "rows" are rows of results."""

    convolution: Convolution
    """Shape of the convolution."""
    source: View
    """Memory layout of the source."""

    @property
    def halves(self) -> int:
        """Number of values per element: 2 for high and low halves, else 1."""
        return 2 if self.source.low else 1

    # The pixels

    @property
    def images(self) -> int:
        """Number of images among which tasks are cut."""
        return self.convolution.batch

    @property
    def height(self) -> int:
        """Number of rows of one image."""
        return self.convolution.out_height

    @property
    def width(self) -> int:
        """Number of pixels of a row."""
        return self.convolution.out_width

    @property
    def pitch(self) -> int:
        """Pixel numbers from one row to the next, including those of zeros."""
        return self.width

    @property
    def spans_images(self) -> bool:
        """True if pixels are numbered across all images."""
        return False

    @property
    def by_rows(self) -> bool:
        """True if a tile stays within a row of pixels."""
        return False

    @property
    @abstractmethod
    def pixel_stride(self) -> int:
        """Source elements from one pixel to the next."""

    @property
    def line_stride(self) -> int:
        """Source elements from one row to the next, if tiles stay within rows."""
        return self.pitch * self.pixel_stride

    def tiles(self, rows: int) -> Tiles:
        """Return the tiles of `rows` rows."""
        pixels = self.width if self.by_rows else (rows - 1) * self.pitch + self.width
        return Tiles(
            geometry=self, rows=min(pixels, ROWS), pixels=pixels, lines=rows if self.by_rows else 1
        )

    # The reduction

    @property
    @abstractmethod
    def depth(self) -> int:
        """Number of elements that one step sums over."""

    @property
    @abstractmethod
    def steps(self) -> int:
        """Number of steps of the reduction."""

    @property
    def blocks(self) -> int:
        """Number of input channel blocks that steps belong to; one if they cannot be separated."""
        return 1

    @abstractmethod
    def reduce(self, rows: int, step: Step, first: TirExpr, count: int) -> None:
        """Emit the loops over the steps of `count` blocks from `first` on, for `rows` rows."""

    @abstractmethod
    def arrange(self, weights: np.ndarray) -> np.ndarray:
        """Return weights (O, I, KH, KW) as (O, steps, depth).

        Elements that an earlier step already covers are zero.
        """

    # The copy

    def copy_size(self, rows: int) -> int:
        """Return the number of elements of the copy for `rows` rows; 0 without a copy."""
        return 0

    def low(self, rows: int) -> int:
        """Return the offset of an element's low half from its high half in the left operand."""
        return self.source.low

    def copy(self, source: Buffer, target: Buffer, image: TirExpr, row: TirExpr, rows: int) -> None:
        """Emit the copy of the source elements that `rows` rows from `row` on read."""
        raise NotImplementedError

    def fits(self, rows: int) -> bool:
        """Return whether the copy for `rows` rows stays in the cache."""
        return 2 * self.copy_size(rows) <= _COPY_BYTES


@dataclass(frozen=True, kw_only=True)
class Tiles:
    """Tiles that cover some rows of results.

    The results form `lines` lines of `pixels` pixels. A tile is a run of `rows` pixels of a line.
    """

    geometry: Geometry
    """Geometry of the convolution."""
    rows: int
    """Pixels of a tile."""
    pixels: int
    """Pixels of a line."""
    lines: int
    """Number of lines."""

    @property
    def per_line(self) -> int:
        """Number of tiles in a line; if they do not fit evenly, the last two overlap."""
        return -(-self.pixels // self.rows)

    @property
    def count(self) -> int:
        """Total number of tiles."""
        return self.lines * self.per_line

    def first(self, tile: TirExpr) -> tuple[TirExpr, TirExpr]:
        """Return the line, and the pixel in it, at which a tile starts."""
        line, place = (
            (0, tile) if self.lines == 1 else (tile // self.per_line, tile % self.per_line)
        )
        if self.pixels % self.rows == 0:
            return line, place * self.rows
        return line, tirx.min(place * self.rows, self.pixels - self.rows)

    def offset(self, line: TirExpr, pixel: TirExpr) -> TirExpr:
        """Return the offset in the left operand of the first element that a pixel reads."""
        return line * self.geometry.line_stride + pixel * self.geometry.pixel_stride


@dataclass(frozen=True, kw_only=True)
class Run:
    """Contiguous elements, cut into steps; the last one starts early if they do not fit evenly."""

    size: int
    """Number of elements."""

    @property
    def depth(self) -> int:
        """Number of elements of a step."""
        return min(self.size, DEPTH)

    @property
    def steps(self) -> int:
        """Number of steps."""
        return -(-self.size // self.depth)

    def start(self, step: TirExpr) -> TirExpr:
        """Return the first element of a step."""
        if self.size % self.depth == 0:
            return step * self.depth
        return tirx.min(step * self.depth, self.size - self.depth)

    def arrange(self, runs: np.ndarray) -> np.ndarray:
        """Return (..., size) as (..., steps, depth); the last step has zeros where it overlaps."""
        cut = np.zeros((*runs.shape[:-1], self.steps, self.depth), runs.dtype)
        for step in range(self.steps):
            first = step * self.depth
            start = min(first, self.size - self.depth)
            cut[..., step, first - start :] = runs[..., first : start + self.depth]
        return cut


@dataclass(frozen=True, kw_only=True)
class InPlace(Geometry):
    """1×1 kernels at stride 1, and matrix products; they read the source itself."""

    @property
    def is_blocked(self) -> bool:
        """True if the source's channels are stored in blocks, each one step deep."""
        return self.source.block < self.convolution.in_channels

    @property
    def spans_images(self) -> bool:
        """True if pixels are numbered across all images.

        This is impossible if channels lie between the images: in blocks, or in the planes of single
        pixels.
        """
        conv, source = self.convolution, self.source
        follow = conv.batch == 1 or source.n == source.h * conv.in_height
        return follow and not self.is_blocked

    @property
    def images(self) -> int:
        """Number of images; one if pixels are numbered across all images."""
        return 1 if self.spans_images else self.convolution.batch

    @property
    def height(self) -> int:
        """Number of rows: every pixel is a row."""
        conv = self.convolution
        return conv.batch // self.images * conv.out_height * conv.out_width

    @property
    def width(self) -> int:
        """Width of a row: one pixel."""
        return 1

    @property
    def pixel_stride(self) -> int:
        """Source elements from one pixel to the next."""
        return self.source.w

    @property
    def _run(self) -> Run:
        return Run(size=self.convolution.in_channels)

    @property
    def depth(self) -> int:
        """Number of channels of a step."""
        return self._run.depth

    @property
    def steps(self) -> int:
        """Number of steps: one per block of channels."""
        return self._run.steps

    @property
    def blocks(self) -> int:
        """Number of blocks: each is one step."""
        return self.steps

    def reduce(self, rows: int, step: Step, first: TirExpr, count: int) -> None:
        """Emit one loop over the channels."""
        with emit.serial(count) as number:
            block = first + number
            step(block * self.source.chunk if self.is_blocked else self._run.start(block), number)

    def arrange(self, weights: np.ndarray) -> np.ndarray:
        """Return the weights as one run of channels."""
        return self._run.arrange(weights[:, :, 0, 0])
