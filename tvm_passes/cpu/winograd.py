"""3×3 convolution of stride 1 by Winograd's F(4×4, 3×3) or F(2×2, 3×3).

There are three stages: transform tiles of the input, compute one matrix product per point of a
tile, transform back with the epilogue. :class:`ConvolutionKernel` computes the products, as a 1×1
convolution with one group per point. Either each task takes a block of tiles through all stages,
with its data in the second-level cache. Or all threads share each stage, if the weights are too
large to be streamed for each block.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from tvm import tirx
from tvm.tirx.script import builder as T

from tvm_passes.arrays import own_pages
from tvm_passes.cpu import emit
from tvm_passes.cpu.convolution import Convolution
from tvm_passes.cpu.convolution_kernel import ConvolutionKernel
from tvm_passes.cpu.emit import Accumulator, Buffer, TirExpr, bind, load, splat, store
from tvm_passes.cpu.epilogue import Epilogue
from tvm_passes.cpu.host import VectorUnit
from tvm_passes.cpu.view import View
from tvm_passes.cpu.winograd_matrices import TAPS, WinogradMatrices, apply_matrix, winograd_matrices

_CHANNEL_BLOCK = 16
"""Channels of a block in the intermediate tensors."""


def is_eligible(convolution: Convolution) -> bool:
    """Return whether these kernels compute a convolution of this shape."""
    conv = convolution
    return (
        conv.kernel == (TAPS, TAPS)
        and conv.strides == conv.dilation == (1, 1)
        and conv.groups == 1
        and conv.in_channels % _CHANNEL_BLOCK == 0
        and conv.out_channels % _CHANNEL_BLOCK == 0
    )


@dataclass(frozen=True, kw_only=True)
class WinogradKernel:
    """A convolution by Winograd's algorithm: packs its weights and emits its code."""

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
        row = self.block * _CHANNEL_BLOCK
        return View(n=0, block=_CHANNEL_BLOCK, chunk=row, c=1, h=row, w=_CHANNEL_BLOCK)

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

    def emit(
        self, buffers: Mapping[int, Buffer], source: Buffer, weights: Buffer, out: Buffer
    ) -> None:
        """Emit the kernel.

        The arguments are those of :meth:`ConvolutionKernel.emit`.
        """
        _Emitter(self, buffers, source, weights, out).emit()


PACKED_AT_ONCE = 32
"""Number of output channels whose weights are transformed together.

This bounds the memory of the transform: its float64 results take up to eight times as much as the
weights.
"""


class _Emitter:
    """Emitter of one kernel."""

    def __init__(
        self,
        kernel: WinogradKernel,
        buffers: Mapping[int, Buffer],
        source: Buffer,
        weights: Buffer,
        out: Buffer,
    ) -> None:
        self.kernel = kernel
        self.conv = kernel.convolution
        self.matrices = kernel.matrices
        self.buffers = buffers
        self.source = source
        self.weights = weights
        self.out = out
        self.scratch = kernel.product.source
        views = [kernel.source, kernel.result]
        blocks = [view.block for view in views if view.chunk != view.block * view.c]
        self.lanes = min([kernel.unit.lanes, _CHANNEL_BLOCK, *blocks, *kernel.epilogue.blocks])

    def emit(self) -> None:
        kernel, conv = self.kernel, self.conv
        blocks = -(-kernel.tiles // kernel.block)
        size = kernel.points * kernel.block

        def stages(first: TirExpr) -> None:
            transformed = T.alloc_buffer((size * conv.in_channels,), "float32")
            products = T.alloc_buffer((size * conv.out_channels,), "float32")
            count = bind(T.min(kernel.block, kernel.tiles - first))
            self._stage(
                conv.in_channels,
                count,
                lambda channel, tile: self._input_tile(first, tile, channel, transformed),
            )
            kernel.product.emit({}, transformed, self.weights, products)
            self._stage(
                conv.out_channels,
                count,
                lambda channel, tile: self._output_tile(first, tile, channel, products),
            )

        if kernel.fused:
            with emit.parallel(blocks) as block:
                stages(bind(block * kernel.block))
        else:
            with emit.serial(blocks) as block:
                stages(bind(block * kernel.block))

    def _stage(
        self, channels: int, count: TirExpr, body: Callable[[TirExpr, TirExpr], None]
    ) -> None:
        """Emit the loops over the channel vectors and the tiles of a block."""
        vectors = channels // self.lanes
        if self.kernel.fused:
            with emit.serial(vectors) as vector, emit.serial(count) as tile:
                body(bind(vector * self.lanes), tile)
            return
        with emit.parallel(vectors) as vector, emit.serial(count) as tile:
            body(bind(vector * self.lanes), tile)

    def _origin(self, first: TirExpr, tile: TirExpr) -> tuple[TirExpr, TirExpr, TirExpr]:
        """Return (image, top, left) of a tile's outputs."""
        down, across = self.kernel.tile_grid
        m = self.matrices.outputs
        index = bind(first + tile)
        top = bind(index // across % down * m)
        return bind(index // (across * down)), top, bind(index % across * m)

    def _combine(self, terms: Sequence[tuple[float, TirExpr]]) -> TirExpr:
        """Return a linear combination; coefficients of one need no product."""
        result = None
        for coefficient, value in sorted(terms, key=lambda term: abs(term[0]) != 1):
            if result is None:
                whole = value if abs(coefficient) == 1 else value * splat(coefficient, self.lanes)
                result = splat(0.0, self.lanes) - whole if coefficient == -1 else whole
            elif coefficient == 1:
                result = result + value
            elif coefficient == -1:
                result = result - value
            else:
                result = result + value * splat(coefficient, self.lanes)
        return bind(result if result is not None else splat(0.0, self.lanes))

    def _both_axes(
        self, matrix: np.ndarray, square: Sequence[Sequence[TirExpr]]
    ) -> list[list[TirExpr]]:
        """Compute matrix · square · matrixᵀ."""
        columns = [
            apply_matrix(matrix, [row[index] for row in square], self._combine)
            for index in range(len(square[0]))
        ]
        return [
            apply_matrix(matrix, [column[index] for column in columns], self._combine)
            for index in range(len(matrix))
        ]

    def _input_tile(
        self, first: TirExpr, tile: TirExpr, channel: TirExpr, transformed: Buffer
    ) -> None:
        """Emit the transform of one tile of the input."""
        conv, size = self.conv, self.matrices.points
        image, top, left = self._origin(first, tile)
        y, x = bind(top - conv.pad_top), bind(left - conv.pad_left)
        inside = tirx.all(y >= 0, x >= 0, y + size <= conv.in_height, x + size <= conv.in_width)

        def compute(square: Sequence[Sequence[TirExpr]]) -> None:
            values = self._both_axes(self.matrices.input, square)
            for row, column in np.ndindex(size, size):
                point = row * size + column
                base = self.scratch.offset(0, point * conv.in_channels + channel, 0, tile)
                store(transformed, values[row][column], base, self.lanes)

        plane = bind(image * self.kernel.source.n + self.kernel.source.channel(channel))
        emit.when(
            inside,
            lambda: compute(self._patch(plane, y, x)),
            lambda: compute(self._padded_patch(plane, y, x)),
        )

    def _patch(self, plane: TirExpr, y: TirExpr, x: TirExpr) -> list[list[TirExpr]]:
        """Load a patch inside the image."""
        view, size = self.kernel.source, self.matrices.points
        base = bind(plane + y * view.h + x * view.w)
        return [
            [
                bind(load(self.source, base + row * view.h + column * view.w, self.lanes))
                for column in range(size)
            ]
            for row in range(size)
        ]

    def _padded_patch(self, plane: TirExpr, y: TirExpr, x: TirExpr) -> list[list[TirExpr]]:
        """Load a patch that reaches beyond the image; zeros outside."""
        view, size, conv = self.kernel.source, self.matrices.points, self.conv
        patch = []
        for row in range(size):
            values = []
            for column in range(size):
                value = Accumulator(self.lanes)
                value.zero()
                below, right = bind(y + row), bind(x + column)
                inside = tirx.all(
                    below >= 0, below < conv.in_height, right >= 0, right < conv.in_width
                )
                with T.If(inside), T.Then():
                    base = plane + below * view.h + right * view.w
                    value.set(load(self.source, base, self.lanes))
                values.append(bind(value.value))
            patch.append(values)
        return patch

    def _output_tile(
        self, first: TirExpr, tile: TirExpr, channel: TirExpr, products: Buffer
    ) -> None:
        """Emit the inverse transform of one tile, with epilogue and store."""
        conv, size, m = self.conv, self.matrices.points, self.matrices.outputs
        image, top, left = self._origin(first, tile)
        square = []
        for row in range(size):
            values = []
            for column in range(size):
                point = row * size + column
                base = self.scratch.offset(0, point * conv.out_channels + channel, 0, tile)
                values.append(bind(load(products, base, self.lanes)))
            square.append(values)
        results = self._both_axes(self.matrices.output, square)
        ragged = conv.out_height % m or conv.out_width % m
        for row, column in np.ndindex(m, m):
            at = (image, channel, top + row, left + column)
            if ragged and (row or column):
                exists = tirx.all(top + row < conv.out_height, left + column < conv.out_width)
                with T.If(exists), T.Then():
                    self._store(at, results[row][column])
            else:
                self._store(at, results[row][column])

    def _store(self, at: tuple[TirExpr, ...], value: TirExpr) -> None:
        view = self.kernel.result
        result = self.kernel.epilogue.evaluate(value, at, self.lanes, self.buffers)
        store(self.out, result, view.offset(*at), self.lanes)
