"""Explicit padding of windows in place of ONNX's ``auto_pad`` and ``output_shape``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tvm.relax import Expr

from tvm_passes.ir import static_shape as shape_of_type


def static_shape(expr: Expr) -> tuple[int, ...]:
    """Return the shape of a tensor.

    Raises
    ------
    UnsupportedModel
        If it is unknown or symbolic.
    """
    return shape_of_type(expr.ty)


def resolve_auto_pad(inputs: Sequence[Any], attributes: dict[str, Any]) -> None:
    """Replace ``auto_pad`` by ``pads``, in place."""
    mode = attributes.pop("auto_pad", b"NOTSET").decode()
    sizes = static_shape(inputs[0])[2:]
    rank = len(sizes)
    if mode == "VALID":
        attributes["pads"] = (0,) * (2 * rank)
    elif mode in ("SAME_UPPER", "SAME_LOWER"):
        ones = [1] * rank
        kernel = attributes.get("kernel_shape") or static_shape(inputs[1])[2:]
        strides, dilations = attributes.get("strides", ones), attributes.get("dilations", ones)
        lower = mode == "SAME_LOWER"
        attributes["pads"] = _same_pads(sizes, kernel, strides, dilations, lower=lower)


def resolve_output_shape(inputs: Sequence[Any], attributes: dict[str, Any]) -> None:
    """Replace ``output_shape`` of a transposed convolution by ``pads``, in place."""
    wanted = attributes.pop("output_shape", None)
    if wanted is None:
        return
    sizes, kernel = static_shape(inputs[0])[2:], static_shape(inputs[1])[2:]
    ones, zeros = [1] * len(sizes), [0] * len(sizes)
    strides, dilations = attributes.get("strides", ones), attributes.get("dilations", ones)
    extra = list(attributes.get("output_padding", zeros))
    upper = attributes.pop("auto_pad", b"NOTSET") == b"SAME_UPPER"
    begins, ends = [], []
    for axis, size in enumerate(sizes):
        full = strides[axis] * (size - 1) + (kernel[axis] - 1) * dilations[axis] + 1 + extra[axis]
        total = full - wanted[-len(sizes) :][axis]
        if total < 0:
            extra[axis], total = extra[axis] - total, 0
        begins.append(total // 2 if upper else total - total // 2)
        ends.append(total - begins[-1])
    attributes["pads"], attributes["output_padding"] = (*begins, *ends), tuple(extra)


def _same_pads(
    sizes: Sequence[int],
    kernel: Sequence[int],
    strides: Sequence[int],
    dilations: Sequence[int],
    *,
    lower: bool,
) -> tuple[int, ...]:
    """Explicit padding of ``auto_pad`` SAME_UPPER or SAME_LOWER (ONNX specification, Conv)."""
    begins, ends = [], []
    for size, window, stride, dilation in zip(sizes, kernel, strides, dilations, strict=True):
        outputs = -(-size // stride)
        total = max((outputs - 1) * stride + (window - 1) * dilation + 1 - size, 0)
        begins.append(total - total // 2 if lower else total // 2)
        ends.append(total - begins[-1])
    return (*begins, *ends)
