"""Plans of convolutions over volumes, as convolutions of images with the rows of all planes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from tvm_passes.cpu.convolution import Convolution
from tvm_passes.cpu.filters import convolution_filters
from tvm_passes.cpu.host import VectorUnit
from tvm_passes.cpu.plan import KernelPlan
from tvm_passes.cpu.plan_products import Product, depthwise_plan, direct_kernel, read_product
from tvm_passes.cpu.subgraph import (
    KernelSubgraph,
    OperatorCall,
    Param,
    is_plain,
    is_stored,
    reshaped,
)
from tvm_passes.cpu.taps import Axis
from tvm_passes.cpu.view import as_planes


def plan_conv3d(subgraph: KernelSubgraph, unit: VectorUnit) -> KernelPlan | str:
    """Plan a convolution over three axes with its epilogue."""
    if not is_plain(subgraph) or is_stored(subgraph) or subgraph.within is not None:
        return subgraph.anchor
    if any(param.within is not None for param in subgraph.params):
        return subgraph.anchor
    product = read_product(subgraph, unit, is_volume=True)
    if isinstance(product, str):
        return product
    flat, shape = _flat(product), _shape(product.anchor)
    if shape and (plan := depthwise_plan(flat, shape)):
        return replace(plan, subgraph=subgraph)
    kernel = direct_kernel(flat, shape, convolution_filters) if shape else None
    if kernel is None:
        return subgraph.anchor

    def pack(weights: np.ndarray) -> np.ndarray:
        return kernel.pack(weights.reshape(as_planes(weights.shape)))

    return product.plan(kernel, pack)


def _shape(node: OperatorCall) -> Convolution | None:
    """Return the shape of a convolution; None unless it has the layouts of imported models."""
    attrs = node.attrs
    if (str(attrs.data_layout), str(attrs.kernel_layout)) != ("NCDHW", "OIDHW"):
        return None
    source, weights = (arg.shape for arg in node.args)
    planes, rows, columns = (
        Axis(
            size=source[2 + axis],
            results=node.shape[2 + axis],
            kernel=weights[2 + axis],
            stride=int(attrs.strides[axis]),
            dilation=int(attrs.dilation[axis]),
            pad=int(attrs.padding[axis]),
        )
        for axis in range(3)
    )
    return Convolution(
        batch=source[0],
        in_channels=source[1],
        in_height=planes.size * rows.size,
        in_width=columns.size,
        out_channels=node.shape[1],
        out_height=planes.results * rows.results,
        out_width=columns.results,
        kernel=(planes.kernel * rows.kernel, columns.kernel),
        strides=(rows.stride, columns.stride),
        dilation=(rows.dilation, columns.dilation),
        pad_top=rows.pad,
        pad_left=columns.pad,
        groups=int(attrs.groups),
        planes=None if _is_row_by_row(planes, rows) else (planes, rows),
    )


def _is_row_by_row(*axes: Axis) -> bool:
    """Return whether each row of the result reads only the input row at its own position."""
    return all(
        (axis.kernel, axis.stride, axis.pad) == (1, 1, 0) and axis.size == axis.results
        for axis in axes
    )


def _flat(product: Product) -> Product:
    """Return the same product with tensors as images; the epilogue keeps its operands' views."""
    flat = reshaped(product.subgraph, lambda shape: as_planes(shape) if len(shape) == 5 else shape)
    anchor = flat.nodes[0]
    source, weights = anchor.args
    assert isinstance(source, Param) and isinstance(weights, Param), "as before"  # noqa: PT018
    return replace(product, subgraph=flat, anchor=anchor, source=source, weights=weights)
