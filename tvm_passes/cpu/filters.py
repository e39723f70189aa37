"""Weights that are computed at run time: kernels pack them in front of their work, or read them where they lie."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tvm.tirx.script import builder as T

from tvm_passes.cpu import emit
from tvm_passes.cpu.emit import Buffer, TirExpr, bind, splat, store
from tvm_passes.cpu.view import View

if TYPE_CHECKING:
    from tvm_passes.cpu.convolution import ConvolutionKernel
    from tvm_passes.cpu.window import Window

Tap = tuple[TirExpr, TirExpr, TirExpr, TirExpr]
"""Output channel, input channel within its group, row and column of a weight."""


@dataclass(frozen=True, kw_only=True)
class Filters:
    """Where each weight lies."""

    view: View
    offset: Callable[[Tap], TirExpr]
    axis: str
    """Axis of the view along which output channels follow each other."""

    def load(self, buffer: Buffer, tap: Tap, lanes: int) -> TirExpr:
        """Weights of `lanes` output channels from `tap` on, as float32."""
        return self.view.load(buffer, self.offset(tap), lanes, self.axis)

    @property
    def is_contiguous(self) -> bool:
        """Whether a vector of output channels is one load."""
        return bool(getattr(self.view, self.axis) == 1)


def convolution_filters(view: View) -> Filters:
    """Weights of a convolution, (O, I, height, width)."""
    return Filters(view=view, offset=lambda tap: view.offset(*tap), axis="n")


def matrix_filters(view: View) -> Filters:
    """A matrix (I, O), as the weights of a pointwise convolution."""
    return Filters(view=view, offset=lambda tap: view.offset(0, tap[0], 0, tap[1]), axis="c")


def emit_packing(
    kernel: ConvolutionKernel, filters: Filters, weights: Buffer, packed: Buffer
) -> None:
    """Emit :meth:`ConvolutionKernel.pack` of weights that are computed at run time.

    Threads share the vectors of output channels. Each reads the weights in the order in which most tensors hold them.
    """
    conv, lanes, block = kernel.convolution, kernel.unit.lanes, kernel.channel_block
    kernel_h, kernel_w = conv.kernel
    per_tile, per_group = kernel.tiling.vectors, kernel.channel_vectors
    tail = conv.group_out % lanes or lanes

    def vector(group: TirExpr, index: TirExpr, count: int) -> None:
        tile = index // per_tile
        width = bind(T.min(per_tile, per_group - tile * per_tile) * lanes)
        start = (group * per_group + tile * per_tile) * (lanes * kernel.steps)
        base = bind(start + index % per_tile * lanes)
        channel = bind(group * conv.group_out + index * lanes)
        with emit.serial(conv.group_in) as channel_in:
            chunk, inner = bind(channel_in // block), bind(channel_in % block)
            with emit.serial(kernel_h) as row, emit.serial(kernel_w) as column:
                step = ((chunk * kernel_w + column) * kernel_h + row) * block + inner
                at = bind(base + step * width)
                if count < lanes:
                    store(packed, splat(0.0, lanes), at, lanes)
                value = filters.load(weights, (channel, channel_in, row, column), count)
                store(packed, value, at, count)

    with emit.parallel(conv.groups * per_group) as task:
        group, index = bind(task // per_group), bind(task % per_group)
        if tail == lanes:
            vector(group, index, lanes)
        else:
            emit.when(
                index < per_group - 1,
                lambda: vector(group, index, lanes),
                lambda: vector(group, index, tail),
            )


def emit_depthwise_packing(
    window: Window, filters: Filters, weights: Buffer, packed: Buffer
) -> None:
    """Emit :meth:`Window.pack` of weights that are computed at run time."""
    lanes, (kernel_h, kernel_w) = window.lanes, window.shape.kernel
    tail = window.shape.out_channels % lanes or lanes

    def vector(index: TirExpr, count: int) -> None:
        with emit.serial(kernel_h) as row, emit.serial(kernel_w) as column:
            at = bind(((index * kernel_h + row) * kernel_w + column) * lanes)
            value = filters.load(weights, (index * lanes, 0, row, column), count)
            store(packed, value, at, count)

    with emit.parallel(window.vectors) as index:
        if tail == lanes:
            vector(index, lanes)
        else:
            emit.when(
                index < window.vectors - 1,
                lambda: vector(index, lanes),
                lambda: vector(index, tail),
            )
