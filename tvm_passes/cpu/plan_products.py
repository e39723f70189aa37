"""Plans of convolutions and matrix products.

Constant weights are packed at build time, others at run time if that pays.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from math import prod
from typing import Protocol

import numpy as np

from tvm_passes.cpu.batched import plan_batched
from tvm_passes.cpu.convolution import Convolution
from tvm_passes.cpu.convolution_kernel import ConvolutionKernel
from tvm_passes.cpu.depthwise import Depthwise
from tvm_passes.cpu.emit import Buffer
from tvm_passes.cpu.epilogue import Epilogue, read_epilogue
from tvm_passes.cpu.filters import Filters, convolution_filters, matrix_filters
from tvm_passes.cpu.host import VectorUnit
from tvm_passes.cpu.matvec import MatrixVector
from tvm_passes.cpu.plan import KernelPlan
from tvm_passes.cpu.plan_pooling import window_plan
from tvm_passes.cpu.subgraph import (
    KernelSubgraph,
    OperatorCall,
    Param,
    as_rows,
    is_plain,
    is_stored,
)
from tvm_passes.cpu.view import View, four_dimensional
from tvm_passes.layout import block_size

_FEW_ROWS = 48
"""Maximum number of rows for which packing a matrix does not pay.

Packing writes and reads again what is read only a few times.
"""


class Kernel(Protocol):
    """Kernel of a product: its code, and the form of its weights."""

    @property
    def packed_size(self) -> int:
        """Number of elements of the packed weights."""
        ...

    @property
    def hints(self) -> Mapping[str, float]:
        """Blocking, as features for cost models."""
        ...

    def emit(
        self, buffers: Mapping[int, Buffer], source: Buffer, weights: Buffer, out: Buffer
    ) -> None:
        """Emit the code, given the flat buffer of each parameter by its index."""
        ...


@dataclass(frozen=True, kw_only=True, eq=False)
class Product:
    """A product of an activation and a weight, with its epilogue."""

    subgraph: KernelSubgraph
    """Sub-graph of the product."""
    anchor: OperatorCall
    """The product's operator."""
    source: Param
    """The activation."""
    weights: Param
    """The weights."""
    epilogue: Epilogue
    """Operators that are applied to the product."""
    unit: VectorUnit
    """Vector instructions and threads of the machine."""

    @property
    def computed(self) -> bool:
        """True if the weights are computed at run time, and the kernel receives them unpacked."""
        return not self.weights.is_weight

    def plan(
        self, kernel: Kernel, pack: Callable[[np.ndarray], np.ndarray], dtype: str = "float32"
    ) -> KernelPlan:
        """Make the plan that runs `kernel`.

        Parameters
        ----------
        pack
            Packs constant weights.
        dtype
            Element type of the packed weights.
        """
        index = self.weights.index
        return KernelPlan(
            subgraph=self.subgraph,
            emit=lambda buffers, out: kernel.emit(
                buffers, buffers[self.source.index], buffers[index], out
            ),
            packs={} if self.computed else {index: pack},
            packed={} if self.computed else {index: ((kernel.packed_size,), dtype)},
            hints=kernel.hints,
        )


def read_product(
    subgraph: KernelSubgraph, unit: VectorUnit, *, is_volume: bool = False
) -> Product | str:
    """Read the product that a sub-graph starts with, or return the operator that is in the way.

    See :func:`read_epilogue` for `is_volume`.
    """
    anchor = subgraph.nodes[0] if subgraph.nodes else None
    if anchor is None or len(anchor.args) != 2:
        return subgraph.anchor
    source, weights = anchor.args
    if not isinstance(source, Param) or not isinstance(weights, Param):
        return subgraph.anchor
    if not source.dtype == weights.dtype == "float32":
        return subgraph.anchor
    epilogue = read_epilogue(subgraph, anchor, is_volume=is_volume)
    if isinstance(epilogue, str):
        return epilogue
    return Product(
        subgraph=subgraph,
        anchor=anchor,
        source=source,
        weights=weights,
        epilogue=epilogue,
        unit=unit,
    )


def conv2d_shape(node: OperatorCall) -> Convolution | None:
    """Return the shape of a convolution; None unless it has the layouts of imported models."""
    attrs = node.attrs
    if (str(attrs.data_layout), str(attrs.kernel_layout)) != ("NCHW", "OIHW"):
        return None
    source, weights = (arg.shape for arg in node.args)
    batch, channels, height, width = source
    _, out_channels, out_height, out_width = node.shape
    return Convolution(
        batch=batch,
        in_channels=channels,
        in_height=height,
        in_width=width,
        out_channels=out_channels,
        out_height=out_height,
        out_width=out_width,
        kernel=(weights[2], weights[3]),
        strides=(int(attrs.strides[0]), int(attrs.strides[1])),
        dilation=(int(attrs.dilation[0]), int(attrs.dilation[1])),
        pad_top=int(attrs.padding[0]),
        pad_left=int(attrs.padding[1]),
        groups=int(attrs.groups),
    )


def matmul_shape(node: OperatorCall) -> Convolution | None:
    """Return a product with one matrix as a pointwise convolution over one row; None for others."""
    source, weights = (arg.shape for arg in node.args)
    if len(weights) < 2 or prod(weights[:-2]) != 1 or len(source) < 2 or len(source) == 4:
        return None
    _, channels, _, rows = four_dimensional(source)
    return Convolution(
        batch=1,
        in_channels=channels,
        in_height=1,
        in_width=rows,
        out_channels=weights[-1],
        out_height=1,
        out_width=rows,
    )


def direct_kernel(
    product: Product, shape: Convolution, filters: Callable[[View], Filters]
) -> ConvolutionKernel | None:
    """Return the kernel of a convolution, or None if its layout does not fit.

    `filters` makes the positions of run-time weights from their view.
    """
    layout = product.subgraph.out_layouts[0]
    block = block_size(layout)
    if block and (shape.group_out % block or product.subgraph.shuffle > 1):
        return None
    return ConvolutionKernel(
        convolution=shape,
        source=product.source.view,
        result=product.subgraph.result_view,
        unit=product.unit,
        epilogue=product.epilogue,
        filters=filters(product.weights.view) if product.computed else None,
    )


def depthwise_plan(
    product: Product, shape: Convolution, *, with_narrow: bool = True
) -> KernelPlan | None:
    """Plan a convolution whose filters each read one channel, in plain layouts; None for others.

    Parameters
    ----------
    with_narrow
        True to accept rows that fill less than half a vector.
    """
    if block_size(product.subgraph.out_layouts[0]):
        return None
    kernel = Depthwise(
        shape=shape,
        source=product.source.view,
        weights=product.weights.view,
        result=product.subgraph.result_view,
        unit=product.unit,
        epilogue=product.epilogue,
    )
    if not kernel.fits or (kernel.is_narrow and not with_narrow):
        return None
    source, weights = product.source.index, product.weights.index
    return KernelPlan(
        subgraph=product.subgraph,
        emit=lambda buffers, out: kernel.emit(buffers, buffers[source], buffers[weights], out),
        hints=kernel.hints,
    )


def plan_conv2d(subgraph: KernelSubgraph, unit: VectorUnit) -> KernelPlan | str:
    """Plan a convolution with its epilogue."""
    product = read_product(subgraph, unit)
    if isinstance(product, str):
        return product
    shape = conv2d_shape(product.anchor)
    if shape is None:
        return product.anchor.operator
    has_window = shape.groups == shape.in_channels == shape.out_channels > 1
    if plan := depthwise_plan(product, shape, with_narrow=not has_window):
        return plan
    if has_window:
        return window_plan(subgraph, shape, "depthwise", unit)
    return _direct_plan(product, shape)


def _direct_plan(product: Product, shape: Convolution) -> KernelPlan | str:
    """Plan a convolution by the direct kernel."""
    if is_stored(product.subgraph):
        return product.anchor.operator
    kernel = direct_kernel(product, shape, convolution_filters)
    return product.plan(kernel, kernel.pack) if kernel else product.anchor.operator


def plan_matmul(subgraph: KernelSubgraph, unit: VectorUnit) -> KernelPlan | str:
    """Plan a product with one right-hand matrix, or with several, and its epilogue."""
    if _reads_matrices(subgraph.nodes[0]):
        return plan_batched(subgraph, unit)
    product = read_product(as_rows(subgraph) if is_plain(subgraph) else subgraph, unit)
    if isinstance(product, str):
        return product
    shape = matmul_shape(product.anchor)
    plan = _matmul_plan(product, shape) if shape else None
    return replace(plan, subgraph=subgraph) if plan else product.anchor.operator


def _reads_matrices(anchor: OperatorCall) -> bool:
    """Return whether the right-hand matrices are read unpacked.

    These are several matrices, or one that is computed at run time for few rows.
    """
    left, right = anchor.args
    if isinstance(right, Param) and right.is_weight:
        return len(right.shape) > 2
    return prod(right.shape[:-2]) > 1 or prod(left.shape[:-1]) <= _FEW_ROWS


def _matmul_plan(product: Product, shape: Convolution) -> KernelPlan | None:
    """Plan a product with one matrix, or return None."""
    if shape.out_width == 1 and not product.computed:
        row = MatrixVector(
            depth=shape.in_channels,
            columns=shape.out_channels,
            source=product.source.view,
            result=product.subgraph.result_view,
            unit=product.unit,
            epilogue=product.epilogue,
        )
        return product.plan(row, row.pack, row.format.dtype)
    kernel = None if is_stored(product.subgraph) else direct_kernel(product, shape, matrix_filters)
    if kernel is None:
        return None
    return product.plan(kernel, lambda matrix: kernel.pack(matrix.T[:, :, None, None]))
