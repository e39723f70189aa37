"""Which kernel computes which sub-graph: one table, by anchor."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from tvm_passes.cpu.convolution import Convolution, ConvolutionKernel
from tvm_passes.cpu.epilogue import Epilogue, read_epilogue
from tvm_passes.cpu.host import VectorUnit
from tvm_passes.cpu.lrn import plan_lrn
from tvm_passes.cpu.matvec import MatrixVector
from tvm_passes.cpu.plan import Plan
from tvm_passes.cpu.pointwise import plan_concat, plan_elementwise
from tvm_passes.cpu.subgraph import Node, Param, Subgraph
from tvm_passes.cpu.view import four_dimensional, view
from tvm_passes.cpu.window import Window
from tvm_passes.cpu.winograd import OUTPUTS, WinogradKernel, is_eligible
from tvm_passes.layout import block_size

Product = ConvolutionKernel | MatrixVector | WinogradKernel
Planner = Callable[[Subgraph, VectorUnit], "Plan | str"]
"""The plan of a sub-graph, or the name of the operator that is in the way."""


def _conv2d_shape(node: Node) -> Convolution | None:
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
        strides=tuple(map(int, attrs.strides)),
        dilation=tuple(map(int, attrs.dilation)),
        pad_top=int(attrs.padding[0]),
        pad_left=int(attrs.padding[1]),
        groups=int(attrs.groups),
    )


def _matmul_shape(node: Node) -> Convolution | None:
    source, weights = (arg.shape for arg in node.args)
    if len(weights) != 2 or len(source) < 2 or len(source) == 4:
        return None
    _, channels, _, rows = four_dimensional(source)
    return Convolution(
        batch=1,
        in_channels=channels,
        in_height=1,
        in_width=rows,
        out_channels=weights[1],
        out_height=1,
        out_width=rows,
    )


def _is_activation_and_weight(node: Node) -> bool:
    if len(node.args) != 2:
        return False
    source, weights = node.args
    return (
        isinstance(source, Param)
        and isinstance(weights, Param)
        and weights.is_weight
        and source.dtype == weights.dtype == "float32"
    )


def _anchored(subgraph: Subgraph) -> tuple[Node, Epilogue] | str:
    anchor = subgraph.nodes[0] if subgraph.nodes else None
    if anchor is None or not _is_activation_and_weight(anchor):
        return subgraph.anchor
    epilogue = read_epilogue(subgraph, anchor)
    return epilogue if isinstance(epilogue, str) else (anchor, epilogue)


def _product_plan(
    subgraph: Subgraph, anchor: Node, kernel: Product, pack: Callable[[np.ndarray], np.ndarray]
) -> Plan:
    source, weights = anchor.args
    return Plan(
        subgraph=subgraph,
        emit=lambda buffers, out: kernel.emit(
            buffers, buffers[source.index], buffers[weights.index], out
        ),
        packs={weights.index: pack},
        packed_shapes={weights.index: (kernel.packed_size,)},
    )


def _convolution_kernel(
    subgraph: Subgraph,
    convolution: Convolution,
    unit: VectorUnit,
    anchor: Node,
    epilogue: Epilogue,
) -> ConvolutionKernel | None:
    block = block_size(subgraph.out_layouts[0])
    if block and convolution.group_out % block:
        return None
    source = anchor.args[0]
    return ConvolutionKernel(
        convolution=convolution,
        source=view(source.shape, source.layout),
        result=view(anchor.shape, subgraph.out_layouts[0]),
        unit=unit,
        epilogue=epilogue,
    )


def _winograd_plan(
    subgraph: Subgraph,
    shape: Convolution | None,
    unit: VectorUnit,
    anchor: Node,
    epilogue: Epilogue,
) -> Plan | str:
    source = view(anchor.args[0].shape, anchor.args[0].layout)
    result = view(anchor.shape, subgraph.out_layouts[0])
    if not shape or not is_eligible(shape) or source.c != 1 or result.c != 1:
        return anchor.operator
    kernel = WinogradKernel(
        convolution=shape,
        algorithm=subgraph.algorithm,
        source=source,
        result=result,
        unit=unit,
        epilogue=epilogue,
    )
    return _product_plan(subgraph, anchor, kernel, kernel.pack)


def plan_conv2d(subgraph: Subgraph, unit: VectorUnit) -> Plan | str:
    """Plan of a convolution with its epilogue."""
    found = _anchored(subgraph)
    if isinstance(found, str):
        return found
    anchor, epilogue = found
    shape = _conv2d_shape(anchor)
    if subgraph.algorithm in OUTPUTS:
        return _winograd_plan(subgraph, shape, unit, anchor, epilogue)
    if shape and shape.groups == shape.in_channels == shape.out_channels > 1:
        return _window_plan(subgraph, shape, "depthwise", unit)
    kernel = shape and _convolution_kernel(subgraph, shape, unit, anchor, epilogue)
    if not kernel:
        return anchor.operator
    return _product_plan(subgraph, anchor, kernel, kernel.pack)


def plan_matmul(subgraph: Subgraph, unit: VectorUnit) -> Plan | str:
    """Plan of a product with a constant matrix, with its epilogue."""
    found = _anchored(subgraph)
    if isinstance(found, str):
        return found
    anchor, epilogue = found
    shape = _matmul_shape(anchor)
    if not shape:
        return anchor.operator
    if shape.out_width == 1:
        row = MatrixVector(
            depth=shape.in_channels, columns=shape.out_channels, unit=unit, epilogue=epilogue
        )
        return _product_plan(subgraph, anchor, row, row.pack)
    kernel = _convolution_kernel(subgraph, shape, unit, anchor, epilogue)
    if not kernel:
        return anchor.operator
    return _product_plan(
        subgraph,
        anchor,
        kernel,
        lambda matrix: kernel.pack(matrix.T.reshape(*matrix.T.shape, 1, 1)),
    )


def _window_plan(subgraph: Subgraph, shape: Convolution, kind: str, unit: VectorUnit) -> Plan | str:
    """Plan of a window over each channel; in layouts whose channels are contiguous."""
    anchor = subgraph.nodes[0]
    source = anchor.args[0]
    epilogue = read_epilogue(subgraph, anchor)
    if isinstance(epilogue, str):
        return epilogue
    if not isinstance(source, Param) or source.dtype != "float32":
        return anchor.operator
    window = Window(
        shape=shape,
        kind=kind,
        source=view(source.shape, source.layout),
        result=view(anchor.shape, subgraph.out_layouts[0]),
        unit=unit,
        epilogue=epilogue,
    )
    weights = anchor.args[1] if kind == "depthwise" else None
    return Plan(
        subgraph=subgraph,
        emit=lambda buffers, out: window.emit(
            buffers,
            buffers[source.index],
            buffers[weights.index] if isinstance(weights, Param) else None,
            out,
        ),
        packs={weights.index: window.pack} if isinstance(weights, Param) else {},
        packed_shapes={weights.index: (window.packed_size,)} if isinstance(weights, Param) else {},
    )


def _window_shape(
    node: Node,
    kernel: Sequence[int],
    strides: Sequence[int] = (1, 1),
    dilation: Sequence[int] = (1, 1),
    padding: Sequence[int] = (0, 0),
) -> Convolution:
    batch, channels, height, width = node.args[0].shape
    return Convolution(
        batch=batch,
        in_channels=channels,
        in_height=height,
        in_width=width,
        out_channels=channels,
        out_height=node.shape[2],
        out_width=node.shape[3],
        kernel=(int(kernel[0]), int(kernel[1])),
        strides=(int(strides[0]), int(strides[1])),
        dilation=(int(dilation[0]), int(dilation[1])),
        pad_top=int(padding[0]),
        pad_left=int(padding[1]),
        groups=channels,
    )


def plan_pool2d(subgraph: Subgraph, unit: VectorUnit) -> Plan | str:
    """Plan of a maximum or average pooling."""
    anchor = subgraph.nodes[0]
    attrs = anchor.attrs
    if str(attrs.layout) != "NCHW":
        return anchor.operator
    shape = _window_shape(anchor, attrs.pool_size, attrs.strides, attrs.dilation, attrs.padding)
    if anchor.operator == "nn.max_pool2d":
        return _window_plan(subgraph, shape, "max", unit)
    if not attrs.count_include_pad:
        return _window_plan(subgraph, shape, "average", unit)
    if bool(attrs.ceil_mode):
        return anchor.operator
    return _window_plan(subgraph, shape, "average_padded", unit)


def plan_adaptive_pool2d(subgraph: Subgraph, unit: VectorUnit) -> Plan | str:
    """Plan of an adaptive average pooling whose windows all have one size."""
    anchor = subgraph.nodes[0]
    _, _, height, width = anchor.args[0].shape
    _, _, out_height, out_width = anchor.shape
    if height % out_height or width % out_width:
        return anchor.operator
    kernel = (height // out_height, width // out_width)
    shape = _window_shape(anchor, kernel, kernel)
    return _window_plan(subgraph, shape, "average", unit)


def plan_mean(subgraph: Subgraph, unit: VectorUnit) -> Plan | str:
    """Plan of a mean over height and width, which is a global average pooling."""
    anchor = subgraph.nodes[0]
    source = anchor.args[0]
    axes = sorted(int(axis) % len(source.shape) for axis in anchor.attrs.axis or ())
    if len(source.shape) != 4 or axes != [2, 3] or not anchor.attrs.keepdims:
        return anchor.operator
    shape = _window_shape(anchor, source.shape[2:])
    return _window_plan(subgraph, shape, "average", unit)


PLANNERS: Mapping[str, Planner] = {
    "concat": plan_concat,
    "elementwise": plan_elementwise,
    "lrn": plan_lrn,
    "matmul": plan_matmul,
    "mean": plan_mean,
    "nn.adaptive_avg_pool2d": plan_adaptive_pool2d,
    "nn.avg_pool2d": plan_pool2d,
    "nn.conv2d": plan_conv2d,
    "nn.max_pool2d": plan_pool2d,
}
"""Anchor → planner."""


def plan_subgraph(subgraph: Subgraph, unit: VectorUnit) -> Plan | str:
    """The plan of a sub-graph, or the name of the operator that no kernel computes in its layout."""
    planner = PLANNERS.get(subgraph.anchor)
    if subgraph.algorithm != "direct" and subgraph.anchor != "nn.conv2d":
        return subgraph.anchor
    return planner(subgraph, unit) if planner else subgraph.anchor
