"""Converters of poolings: results have the extents of ONNX Runtime's, and windows fit the input."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

from tvm import relax
from tvm.relax import Expr

from tvm_passes.errors import UnsupportedModel
from tvm_passes.normalize.windows import WindowAxis, pooled_extent
from tvm_passes.onnx.padding import resolve_auto_pad, static_shape
from tvm_passes.onnx.support import Converter, stock

_CLIPPED_COUNTS_OPSET = 19
"""First operator set in which averages count only the padding that attributes declare."""


def pooling(name: str) -> Converter:
    """Make the converter of AveragePool or MaxPool: TVM's, with explicit padding.

    Without ``ceil_mode``, a window larger than the padded input is shrunk to it, or the input is
    padded further.
    """

    def convert(
        builder: relax.BlockBuilder,
        inputs: Sequence[Any],
        attributes: dict[str, Any],
        state: Any,
        opset: int,
    ) -> Expr:
        axes = _window_axes(inputs, attributes)
        counts_padding = name == "AveragePool" and bool(attributes.get("count_include_pad", 0))
        if not attributes.get("ceil_mode", 0):
            _make_room(axes, attributes, pad=counts_padding and opset < _CLIPPED_COUNTS_OPSET)
        return stock(name)(builder, inputs, attributes, state, opset)

    return convert


def lp_pooling(
    builder: relax.BlockBuilder,
    inputs: Sequence[Any],
    attributes: dict[str, Any],
    _state: Any,
    _opset: int,
) -> Expr:
    """Convert LpPool: the p-th root of the sum of |x|^p over each window.

    The sum is an average pooling over clipped windows, multiplied by their size.
    """
    axes = [axis.clipped for axis in _window_axes(inputs, attributes)]
    data, power = inputs[0], float(attributes.get("p", 2))
    dtype = str(data.ty.dtype)
    powers = builder.emit(
        relax.op.power(builder.emit(relax.op.abs(data)), relax.const(power, dtype))
    )
    function = getattr(relax.op.nn, f"avg_pool{len(axes)}d")
    average = function(
        powers,
        [axis.kernel for axis in axes],
        [axis.stride for axis in axes],
        [*(axis.before for axis in axes), *(axis.after for axis in axes)],
        [axis.dilation for axis in axes],
        False,
        True,
    )
    size = relax.const(float(prod(axis.kernel for axis in axes)), dtype)
    total = builder.emit(relax.op.multiply(builder.emit(average), size))
    return relax.op.power(total, relax.const(1 / power, dtype))


average_pool = pooling("AveragePool")
max_pool = pooling("MaxPool")


def _window_axes(inputs: Sequence[Any], attributes: dict[str, Any]) -> list[WindowAxis]:
    """Windows along each axis; ``auto_pad`` becomes ``pads``, in place.

    Raises
    ------
    UnsupportedModel
        If no window fits.
    """
    resolve_auto_pad(inputs, attributes)
    sizes, kernel = static_shape(inputs[0])[2:], attributes["kernel_shape"]
    rank = len(sizes)
    ones = (1,) * rank
    strides, dilations = attributes.get("strides", ones), attributes.get("dilations", ones)
    pads = attributes["pads"] = tuple(attributes.get("pads", (0,) * (2 * rank)))
    axes = []
    for place in range(rank):
        axis = WindowAxis(
            size=sizes[place],
            kernel=kernel[place],
            stride=strides[place],
            dilation=dilations[place],
            before=pads[place],
            after=pads[rank + place],
            outputs=0,
        )
        outputs = pooled_extent(axis, ceil_mode=bool(attributes.get("ceil_mode", 0)))
        if outputs < 1:
            raise UnsupportedModel(
                f"a window of {axis.kernel} with dilation {axis.dilation} and stride "
                f"{axis.stride} has no room on axis {place + 2} of extent {axis.size}, padded by "
                f"{axis.before} and {axis.after}"
            )
        axes.append(axis.with_outputs(outputs))
    return axes


def _make_room(axes: Sequence[WindowAxis], attributes: dict[str, Any], *, pad: bool) -> None:
    """Shrink the only window of an axis to the padded input, or pad the input, in place."""
    rank = len(axes)
    kernel, pads = list(attributes["kernel_shape"]), list(attributes["pads"])
    strides = list(attributes.get("strides", (1,) * rank))
    for place, axis in enumerate(axes):
        extent = axis.before + axis.size + axis.after
        lacking = (axis.kernel - 1) * axis.dilation + 1 - extent
        if lacking > 0 and pad:
            pads[rank + place] += lacking
        elif lacking > 0:
            kernel[place], strides[place] = (extent - 1) // axis.dilation + 1, extent
    attributes.update(kernel_shape=tuple(kernel), pads=tuple(pads), strides=tuple(strides))
