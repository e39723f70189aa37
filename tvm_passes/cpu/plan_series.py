"""Plans of convolutions over one axis, as convolutions of images that are one pixel high."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from tvm_passes.cpu.convolution import Convolution
from tvm_passes.cpu.filters import convolution_filters
from tvm_passes.cpu.host import VectorUnit
from tvm_passes.cpu.plan import KernelPlan
from tvm_passes.cpu.plan_products import depthwise_plan, direct_kernel, read_product
from tvm_passes.cpu.subgraph import KernelSubgraph, OperatorCall, is_plain, is_stored, reshaped


def as_image(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return ``(N, C, W)`` as ``(N, C, 1, W)``; broadcast operands likewise."""
    return (*shape[:-1], 1, shape[-1]) if len(shape) > 1 else shape


def _image_shape(node: OperatorCall) -> Convolution | None:
    """Return the shape of a convolution as one of images; None for other layouts."""
    attrs = node.attrs
    if (str(attrs.data_layout), str(attrs.kernel_layout)) != ("NCW", "OIW"):
        return None
    batch, channels, _, width = node.args[0].shape
    return Convolution(
        batch=batch,
        in_channels=channels,
        in_height=1,
        in_width=width,
        out_channels=node.shape[1],
        out_height=1,
        out_width=node.shape[3],
        kernel=(1, node.args[1].shape[3]),
        strides=(1, int(attrs.strides[0])),
        dilation=(1, int(attrs.dilation[0])),
        pad_left=int(attrs.padding[0]),
        groups=int(attrs.groups),
    )


def plan_conv1d(subgraph: KernelSubgraph, unit: VectorUnit) -> KernelPlan | str:
    """Plan a convolution over one axis with its epilogue."""
    if not is_plain(subgraph) or is_stored(subgraph) or subgraph.within is not None:
        return subgraph.anchor
    if any(param.within is not None for param in subgraph.params):
        return subgraph.anchor
    product = read_product(reshaped(subgraph, as_image), unit)
    if isinstance(product, str):
        return product
    shape = _image_shape(product.anchor)
    if shape and (plan := depthwise_plan(product, shape)):
        return replace(plan, subgraph=subgraph)
    kernel = direct_kernel(product, shape, convolution_filters) if shape else None
    if kernel is None:
        return subgraph.anchor

    def pack(weights: np.ndarray) -> np.ndarray:
        return kernel.pack(weights[:, :, None])

    return replace(product.plan(kernel, pack), subgraph=subgraph)
