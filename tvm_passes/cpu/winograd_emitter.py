"""Code of a convolution by Winograd's algorithm: its stages over blocks of tiles."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from tvm import tirx
from tvm.tirx.script import builder as T

from tvm_passes.cpu import emit
from tvm_passes.cpu.emit import Accumulator, Buffer, TirExpr, bind, load, splat, store
from tvm_passes.cpu.winograd_convolution import CHANNEL_BLOCK, WinogradConvolution
from tvm_passes.cpu.winograd_matrices import apply_matrix


class WinogradEmitter:
    """Emitter of one kernel's stages."""

    def __init__(
        self,
        kernel: WinogradConvolution,
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
        self.lanes = min([kernel.unit.lanes, CHANNEL_BLOCK, *blocks, *kernel.epilogue.blocks])

    def emit(self) -> None:
        """Emit all stages."""
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
