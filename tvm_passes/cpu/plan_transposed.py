"""Plans of transposed convolutions: each phase of the result is a separate convolution.

A phase is the set of results with equal remainders of their coordinates by the strides.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product as pairs
from math import gcd

import numpy as np

from tvm_passes.arrays import own_pages
from tvm_passes.cpu.convolution import Convolution
from tvm_passes.cpu.convolution_kernel import ConvolutionKernel
from tvm_passes.cpu.emit import Buffer, TirExpr
from tvm_passes.cpu.filters import Filters, Tap
from tvm_passes.cpu.host import VectorUnit
from tvm_passes.cpu.plan import KernelPlan
from tvm_passes.cpu.plan_products import Product, read_product
from tvm_passes.cpu.plan_series import as_image
from tvm_passes.cpu.subgraph import KernelSubgraph, OperatorCall, is_stored, reshaped
from tvm_passes.cpu.view import View
from tvm_passes.layout import block_size


@dataclass(frozen=True, kw_only=True)
class _Phase:
    """Results ``phase``, ``phase + stride`` and so on along one axis, and their kernel taps."""

    phase: int
    """Index of the first result."""
    stride: int
    """Distance between results."""
    size: int
    """Number of these results."""
    taps: tuple[int, ...]
    """Kernel taps in the order of their inputs."""
    dilation: int
    """Distance from one tap's input to the next one's."""
    pad: int
    """Padding before the input; negative if the first result starts at a later input."""


_MOST_PARTS = 16
"""Maximum number of phases: TVM's passes and LLVM take up to a second for the code of each."""

_BEYOND = 1 << 20
"""Distance to the inputs of a phase that no tap contributes to: no inputs exist there."""


def _phases(extent: int, kernel: int, stride: int, dilation: int, pad: int) -> tuple[_Phase, ...]:
    """Return the phases of an axis with `extent` results.

    Input ``i`` and tap ``k`` contribute to result ``i * stride + k * dilation - pad``.
    """
    found = []
    for phase in range(min(stride, extent)):
        taps = [k for k in range(kernel) if (phase + pad - k * dilation) % stride == 0]
        first = (phase + pad - taps[-1] * dilation) // stride if taps else _BEYOND
        found.append(
            _Phase(
                phase=phase,
                stride=stride,
                size=-(-(extent - phase) // stride),
                taps=tuple(reversed(taps)) or (0,),
                dilation=dilation // gcd(dilation, stride),
                pad=-first,
            )
        )
    return tuple(found)


@dataclass(frozen=True, kw_only=True)
class _Part:
    """A phase of both axes."""

    down: _Phase
    """Phase of the rows."""
    across: _Phase
    """Phase of the columns."""

    def view(self, whole: View) -> View:
        """Return the positions of this part in a tensor that broadcasts to the result's shape."""
        start = whole.start + self.down.phase * whole.h + self.across.phase * whole.w
        return replace(
            whole, start=start, h=whole.h * self.down.stride, w=whole.w * self.across.stride
        )

    def pack(self, weights: np.ndarray, groups: int) -> np.ndarray:
        """Return the part's filters (O, I, height, width) of weights (I, O, height, width)."""
        inputs, outputs = weights.shape[:2]
        chosen = weights[:, :, self.down.taps][..., self.across.taps]
        split = chosen.reshape(groups, inputs // groups, outputs, *chosen.shape[2:])
        return split.swapaxes(1, 2).reshape(groups * outputs, inputs // groups, *chosen.shape[2:])

    def filters(self, view: View, shape: Convolution) -> Filters:
        """Return the positions of the part's filters in weights that are computed at run time."""

        def offset(tap: Tap) -> TirExpr:
            channel, inner, row, column = tap
            source = channel // shape.group_out * shape.group_in + inner
            return view.offset(
                source, channel % shape.group_out, _tap(self.down, row), _tap(self.across, column)
            )

        return Filters(view=view, offset=offset, axis="c")


def _tap(phase: _Phase, index: TirExpr) -> TirExpr:
    """Return a kernel tap; taps are evenly spaced and descend."""
    taps = phase.taps
    return taps[0] - index * (taps[0] - taps[1]) if len(taps) > 1 else taps[0]


def plan_transposed(subgraph: KernelSubgraph, unit: VectorUnit) -> KernelPlan | str:
    """Plan a transposed convolution over one or two axes with its epilogue."""
    if is_stored(subgraph):
        return subgraph.anchor
    flat = len(subgraph.nodes[0].shape) == 3
    product = read_product(reshaped(subgraph, as_image) if flat else subgraph, unit)
    if isinstance(product, str):
        return product
    parts = _parts(product.anchor)
    block = block_size(subgraph.out_layouts[0])
    group_out = product.weights.shape[1]
    if not 0 < len(parts) <= _MOST_PARTS or (block and group_out % block):
        return subgraph.anchor
    return replace(_plan(product, parts), subgraph=subgraph)


_AS_IMPORTED = (("NCHW", "IOHW"), ("NCW", "IOW"))
"""Data and kernel layouts of imported models."""


def _parts(node: OperatorCall) -> list[_Part]:
    """Return the parts of a result; none unless it has the layouts of imported models."""
    attrs = node.attrs
    if (str(attrs.data_layout), str(attrs.kernel_layout)) not in _AS_IMPORTED:
        return []
    before = attrs.padding[: len(attrs.padding) // 2]
    down, across = (
        _phases(extent, kernel, stride, dilation, pad)
        for extent, kernel, stride, dilation, pad in zip(
            node.shape[2:],
            node.args[1].shape[2:],
            _rows_and_columns(attrs.strides, 1),
            _rows_and_columns(attrs.dilation, 1),
            _rows_and_columns(before, 0),
            strict=True,
        )
    )
    return [_Part(down=one, across=other) for one, other in pairs(down, across)]


def _rows_and_columns(values: Sequence[int], of_rows: int) -> tuple[int, int]:
    """Return an attribute for both axes of an image; a single value is for the columns."""
    return (int(values[-2]) if len(values) > 1 else of_rows), int(values[-1])


def _plan(product: Product, parts: Sequence[_Part]) -> KernelPlan:
    """Plan the kernels of all parts, one after the other."""
    kernels: list[ConvolutionKernel] = []
    for part in parts:
        first = sum(kernel.packed_size for kernel in kernels)
        kernels.append(_kernel(product, part, 0 if product.computed else first))
    groups, weights = int(product.anchor.attrs.groups), product.weights.index
    size = sum(kernel.packed_size for kernel in kernels)

    def pack(array: np.ndarray) -> np.ndarray:
        image = array if array.ndim == 4 else array[:, :, None]
        packed, first = own_pages((size,), array.dtype), 0
        for kernel, part in zip(kernels, parts, strict=True):
            last = first + kernel.packed_size
            packed[first:last] = kernel.pack(part.pack(image, groups))
            first = last
        return packed

    def emit(buffers: Mapping[int, Buffer], out: Buffer) -> None:
        for kernel in kernels:
            kernel.emit(buffers, buffers[product.source.index], buffers[weights], out)

    return KernelPlan(
        subgraph=product.subgraph,
        emit=emit,
        packs={} if product.computed else {weights: pack},
        packed={} if product.computed else {weights: ((size,), "float32")},
        hints=_hints(kernels),
    )


def _kernel(product: Product, part: _Part, weights_start: int) -> ConvolutionKernel:
    """Return the kernel of one part."""
    batch, channels, height, width = product.source.shape
    groups = int(product.anchor.attrs.groups)
    shape = Convolution(
        batch=batch,
        in_channels=channels,
        in_height=height,
        in_width=width,
        out_channels=product.anchor.shape[1],
        out_height=part.down.size,
        out_width=part.across.size,
        kernel=(len(part.down.taps), len(part.across.taps)),
        dilation=(part.down.dilation, part.across.dilation),
        pad_top=part.down.pad,
        pad_left=part.across.pad,
        groups=groups,
    )
    operands = {param: part.view(view) for param, view in product.epilogue.views.items()}
    return ConvolutionKernel(
        convolution=shape,
        source=product.source.view,
        result=part.view(product.subgraph.result_view),
        unit=product.unit,
        epilogue=replace(product.epilogue, views=operands),
        filters=part.filters(product.weights.view, shape) if product.computed else None,
        weights_start=weights_start,
    )


_SUMMED = ("cycles", "tasks", "repacked_bytes")
"""Features that are summed over the parts."""


def _hints(kernels: Sequence[ConvolutionKernel]) -> Mapping[str, float]:
    """Return the features of the first part, which is the largest, and the sums over all parts."""
    hints = dict(kernels[0].hints)
    for name in _SUMMED:
        if name in hints:
            hints[name] = sum(kernel.hints[name] for kernel in kernels)
    return hints
