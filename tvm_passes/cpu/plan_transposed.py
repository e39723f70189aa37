"""Plans of transposed convolutions: one direct convolution for each remainder of the output's position by the stride.

Output ``o`` receives tap ``k`` of input ``i`` where ``o = i * stride + k - padding``. Outputs of one remainder of
``o + padding`` see every stride-th tap, of consecutive inputs: a convolution without stride over a part of the filter.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from tvm_passes.cpu.convolution import Convolution, ConvolutionKernel
from tvm_passes.cpu.emit import Buffer
from tvm_passes.cpu.host import VectorUnit
from tvm_passes.cpu.plan import Plan
from tvm_passes.cpu.plan_products import Product, read_product
from tvm_passes.cpu.plan_series import as_image
from tvm_passes.cpu.subgraph import Subgraph, is_plain, is_stored, reshaped
from tvm_passes.cpu.view import View

_LAYOUTS = {"nn.conv1d_transpose": ("NCW", "IOW"), "nn.conv2d_transpose": ("NCHW", "IOHW")}


@dataclass(frozen=True, kw_only=True)
class _Phase:
    """The outputs of one axis whose padded position leaves one remainder by the stride."""

    remainder: int
    stride: int
    taps: int
    first: int
    """First output."""
    outputs: int
    padding: int
    """Inputs that the first window lacks; negative where it starts inside."""

    def filters(self, weights: np.ndarray, axis: int) -> np.ndarray:
        """The taps of the phase, in the order in which its windows meet them."""
        taken = [self.remainder + self.stride * tap for tap in reversed(range(self.taps))]
        return weights.take(taken, axis=axis)


def _phases(kernel: int, stride: int, padding: int, outputs: int) -> list[_Phase]:
    found = []
    for remainder in range(min(stride, outputs + padding)):
        taps = -(-(kernel - remainder) // stride)
        start = max(0, -((remainder - padding) // stride))
        first = start * stride + remainder - padding
        count = -(-(outputs - first) // stride)
        if count > 0:
            found.append(
                _Phase(
                    remainder=remainder,
                    stride=stride,
                    taps=taps,
                    first=first,
                    outputs=count,
                    padding=taps - 1 - start,
                )
            )
    return found


def _spread(view: View, down: _Phase, across: _Phase) -> View:
    """The elements of a phase's outputs."""
    return replace(
        view,
        h=view.h * down.stride,
        w=view.w * across.stride,
        start=view.start + down.first * view.h + across.first * view.w,
    )


def _kernel(
    product: Product, down: _Phase, across: _Phase, weights_start: int
) -> ConvolutionKernel:
    batch, channels, height, width = product.source.shape
    views = product.epilogue.views.items()
    spread = {param: _spread(view, down, across) for param, view in views}
    return ConvolutionKernel(
        convolution=Convolution(
            batch=batch,
            in_channels=channels,
            in_height=height,
            in_width=width,
            out_channels=product.anchor.shape[1],
            out_height=down.outputs,
            out_width=across.outputs,
            kernel=(down.taps, across.taps),
            pad_top=down.padding,
            pad_left=across.padding,
        ),
        source=product.source.view,
        result=_spread(product.subgraph.result_view, down, across),
        unit=product.unit,
        epilogue=replace(product.epilogue, views=spread),
        weights_start=weights_start,
    )


def plan_transposed(subgraph: Subgraph, unit: VectorUnit) -> Plan | str:
    """Plan of a transposed convolution over one or two axes in one group, with constant weights and its epilogue."""
    anchor = subgraph.nodes[0]
    attrs = anchor.attrs
    if not is_plain(subgraph) or is_stored(subgraph) or subgraph.within is not None:
        return subgraph.anchor
    if any(param.within is not None for param in subgraph.params):
        return subgraph.anchor
    layouts = (str(attrs.data_layout), str(attrs.kernel_layout))
    if layouts != _LAYOUTS[subgraph.anchor] or int(attrs.groups) != 1:
        return subgraph.anchor
    flat = len(anchor.shape) == 3
    product = read_product(reshaped(subgraph, as_image) if flat else subgraph, unit)
    if isinstance(product, str) or product.computed:
        return product if isinstance(product, str) else subgraph.anchor
    rank = len(anchor.shape) - 2
    strides = [1] * flat + [int(stride) for stride in attrs.strides]
    padding = [0] * flat + [int(width) for width in attrs.padding][:rank]
    kernel = product.weights.shape[2:]
    if any(int(step) != 1 for step in attrs.dilation) or any(
        size < stride for size, stride in zip(kernel, strides, strict=True)
    ):
        return subgraph.anchor
    sizes = zip(kernel, strides, padding, product.anchor.shape[2:], strict=True)
    return replace(_plan(product, [_phases(*axis) for axis in sizes]), subgraph=subgraph)


def _plan(product: Product, axes: list[list[_Phase]]) -> Plan:
    places = list(itertools.product(*axes))
    kernels: list[ConvolutionKernel] = []
    for down, across in places:
        start = kernels[-1].weights_start + kernels[-1].packed_size if kernels else 0
        kernels.append(_kernel(product, down, across, start))

    def pack(weights: np.ndarray) -> np.ndarray:
        image = weights if weights.ndim == 4 else weights[:, :, None]
        parts = []
        for kernel, (down, across) in zip(kernels, places, strict=True):
            taps = across.filters(down.filters(image, 2), 3)
            parts.append(kernel.pack(np.ascontiguousarray(taps.transpose(1, 0, 2, 3))))
        return np.concatenate(parts)

    def emit(buffers: Mapping[int, Buffer], out: Buffer) -> None:
        source, weights = buffers[product.source.index], buffers[product.weights.index]
        for kernel in kernels:
            kernel.emit(buffers, source, weights, out)

    index = product.weights.index
    size = sum(kernel.packed_size for kernel in kernels)
    return Plan(
        subgraph=product.subgraph,
        emit=emit,
        packs={index: pack},
        packed={index: ((size,), "float32")},
        hints={"kernel_direct": 1.0, "tasks": sum(kernel.tiling.tasks for kernel in kernels)},
    )
