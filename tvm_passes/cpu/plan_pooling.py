"""Plans of pooling, and of operators that are equivalent to pooling."""

from __future__ import annotations

from collections.abc import Sequence

from tvm_passes.cpu.convolution import Convolution
from tvm_passes.cpu.epilogue import read_epilogue
from tvm_passes.cpu.filters import convolution_filters
from tvm_passes.cpu.host import VectorUnit
from tvm_passes.cpu.plan import KernelPlan
from tvm_passes.cpu.subgraph import KernelSubgraph, OperatorCall, Param
from tvm_passes.cpu.window_kernel import WindowKernel


def window_plan(
    subgraph: KernelSubgraph, shape: Convolution, kind: str, unit: VectorUnit
) -> KernelPlan | str:
    """Plan a window over each channel, in layouts with contiguous channels."""
    anchor = subgraph.nodes[0]
    source = anchor.args[0]
    epilogue = read_epilogue(subgraph, anchor)
    if isinstance(epilogue, str):
        return epilogue
    if not isinstance(source, Param) or source.dtype != "float32":
        return anchor.operator
    weights = anchor.args[1] if kind == "depthwise" else None
    param = weights if isinstance(weights, Param) else None
    constant = param if param and param.is_weight else None
    window = WindowKernel(
        shape=shape,
        kind=kind,
        source=source.view,
        result=subgraph.result_view,
        unit=unit,
        epilogue=epilogue,
        filters=convolution_filters(param.view) if param and not constant else None,
    )
    return KernelPlan(
        subgraph=subgraph,
        emit=lambda buffers, out: window.emit(
            buffers,
            buffers[source.index],
            buffers[param.index] if param else None,
            out,
        ),
        packs={constant.index: window.pack} if constant else {},
        packed={constant.index: ((window.packed_size,), "float32")} if constant else {},
        hints=window.hints,
    )


def _window_shape(
    node: OperatorCall,
    kernel: Sequence[int],
    strides: Sequence[int] = (1, 1),
    dilation: Sequence[int] = (1, 1),
    padding: Sequence[int] = (0, 0),
) -> Convolution:
    """Return the shape of a window over each channel of an operator's input."""
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


def plan_pool2d(subgraph: KernelSubgraph, unit: VectorUnit) -> KernelPlan | str:
    """Plan a maximum or average pooling."""
    anchor = subgraph.nodes[0]
    attrs = anchor.attrs
    if str(attrs.layout) != "NCHW":
        return anchor.operator
    shape = _window_shape(anchor, attrs.pool_size, attrs.strides, attrs.dilation, attrs.padding)
    if anchor.operator == "nn.max_pool2d":
        return window_plan(subgraph, shape, "max", unit)
    if not attrs.count_include_pad:
        return window_plan(subgraph, shape, "average", unit)
    if bool(attrs.ceil_mode):
        return anchor.operator
    return window_plan(subgraph, shape, "average_padded", unit)


def plan_adaptive_pool2d(subgraph: KernelSubgraph, unit: VectorUnit) -> KernelPlan | str:
    """Plan an adaptive average pooling whose windows all have one size."""
    anchor = subgraph.nodes[0]
    _, _, height, width = anchor.args[0].shape
    _, _, out_height, out_width = anchor.shape
    if height % out_height or width % out_width:
        return anchor.operator
    kernel = (height // out_height, width // out_width)
    shape = _window_shape(anchor, kernel, kernel)
    return window_plan(subgraph, shape, "average", unit)


def plan_mean(subgraph: KernelSubgraph, unit: VectorUnit) -> KernelPlan | str:
    """Plan a mean over height and width, which is a global average pooling."""
    anchor = subgraph.nodes[0]
    source = anchor.args[0]
    axes = sorted(int(axis) % len(source.shape) for axis in anchor.attrs.axis or ())
    if len(source.shape) != 4 or axes != [2, 3] or not anchor.attrs.keepdims:
        return anchor.operator
    shape = _window_shape(anchor, source.shape[2:])
    return window_plan(subgraph, shape, "average", unit)
