"""Convolutions and matrix products."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

from tvm import relax
from tvm.ir import Call

from tvm_passes.ir import Expr, static_shape
from tvm_passes.onednn.epilogue import finish
from tvm_passes.onednn.graph import Node, Tensor, row_major
from tvm_passes.onednn.halves import tripled_source, tripled_weight
from tvm_passes.onednn.quantized import product, scales
from tvm_passes.onednn.scope import Scope

_DATA_LAYOUTS = ("NCW", "NCHW", "NCDHW")
_KERNEL_LAYOUTS = ("OIW", "OIHW", "OIDHW")
_TRANSPOSED_LAYOUTS = ("IOW", "IOHW", "IODHW")


def ints(values: Iterable[Any]) -> list[int]:
    """Attribute values as Python integers."""
    return [int(value) for value in values]


def window(call: Call) -> dict[str, list[int]]:
    """The attributes that convolution and pooling share, in oneDNN's conventions."""
    padding = ints(call.attrs.padding)
    spatial = len(call.attrs.strides)
    if len(padding) == 1:
        padding *= 2 * spatial
    elif len(padding) == spatial:
        padding *= 2
    return {
        "strides": ints(call.attrs.strides),
        "dilation": [dilation - 1 for dilation in ints(call.attrs.dilation)],
        "padding_before": padding[:spatial],
        "padding_after": padding[spatial:],
    }


def _check_layouts(scope: Scope, call: Call, kernels: Sequence[str]) -> None:
    data, kernel = str(call.attrs.data_layout), str(call.attrs.kernel_layout)
    if data not in _DATA_LAYOUTS or kernel not in kernels:
        raise scope.fail(f"layouts {data} and {kernel}", "the logical form NCHW with " + kernels[1])


def _weight(scope: Scope, expr: Expr) -> Tensor:
    weight = scope.tensor(expr)
    if weight.storage.kind not in ("weight", "const"):
        raise scope.fail("weights computed at run time", "constant weights")
    return weight


def convolution(scope: Scope, binding: relax.VarBinding) -> None:
    """``nn.conv1d``, ``nn.conv2d``, ``nn.conv3d``."""
    call = binding.value
    _check_layouts(scope, call, _KERNEL_LAYOUTS)
    data, filters_ = call.args
    integers = product(scope, data, filters_)
    if integers is not None:
        data, filters_ = (operand.source for operand in integers)
    weight = _weight(scope, filters_)
    groups = int(call.attrs.groups)
    outputs, inputs, *kernel = weight.shape
    shape = (outputs, inputs, *kernel)
    if groups > 1:
        shape = (groups, outputs // groups, inputs, *kernel)
    if scope.splits:
        source, filters = _tripled(scope, data, weight, groups)
    else:
        source = scope.activation(data)
        filters = _filters(scope, weight, shape, row_major(shape))
    result = scope.result(static_shape(binding.var.ty))
    node = scope.node("convolution", [source, filters], result, window(call))
    if integers is not None:
        node.quantized = scales(scope, integers, mask=0b11 if groups > 1 else 0b1)
    finish(scope, binding.var, node)


def _filters(scope: Scope, weight: Tensor, shape: Sequence[int], strides: Sequence[int]) -> Tensor:
    """`weight` as the primitive reads it: packed beforehand, unless it is a constant of the graph's own."""
    if weight.storage.kind == "weight":
        return Tensor(
            tuple(shape),
            weight.storage,
            dtype=scope.stored(weight.dtype),
            strides=tuple(strides),
            packable=True,
            plain_dtype=weight.dtype,
        )
    constant = weight.view(shape, strides=strides)
    return constant if weight.dtype == scope.dtype else scope.plain_activation(constant)


def _tripled(scope: Scope, source: Expr, weight: Tensor, groups: int) -> tuple[Tensor, Tensor]:
    if groups > 1 or weight.storage.kind != "weight":
        raise scope.fail(
            f"{groups} groups, filters in a {weight.storage.kind}",
            "one group of constant filters for split-bf16",
        )
    return tripled_source(scope, source), tripled_weight(weight, 1)


def transposed_convolution(scope: Scope, binding: relax.VarBinding) -> None:
    """``nn.conv1d_transpose``, ``nn.conv2d_transpose``, ``nn.conv3d_transpose``."""
    call = binding.value
    _check_layouts(scope, call, _TRANSPOSED_LAYOUTS)
    weight = _weight(scope, call.args[1])
    groups = int(call.attrs.groups)
    inputs, outputs, *kernel = weight.shape
    area = math.prod(kernel)
    shape = (outputs, inputs, *kernel)
    strides = (area, outputs * area, *row_major(kernel))
    if groups > 1:
        shape = (groups, outputs, inputs // groups, *kernel)
        strides = (inputs // groups * outputs * area, *strides)
    filters = _filters(scope, weight, shape, strides)
    attrs = window(call)
    extra = ints(call.attrs.output_padding)
    attrs["padding_after"] = [
        after - more for after, more in zip(attrs["padding_after"], extra, strict=True)
    ]
    result = scope.result(static_shape(binding.var.ty))
    source = scope.activation(call.args[0])
    finish(scope, binding.var, scope.node("deconvolution", [source, filters], result, attrs))


def matmul(scope: Scope, binding: relax.VarBinding) -> None:
    """``matmul``: by constant weights (packed), or of two activations."""
    left, right = binding.value.args
    integers = product(scope, left, right)
    if integers is not None and _is_weight(scope, integers[1].source):
        left, right = (operand.source for operand in integers)
    else:
        integers = None
    shapes = [static_shape(argument.ty) for argument in (left, right)]
    if any(len(shape) < 2 for shape in shapes):
        raise scope.fail(f"operands of shapes {shapes[0]} and {shapes[1]}", "matrices")
    if _is_weight(scope, right) and math.prod(shapes[1][:-2]) == 1:
        node = _by_weights(scope, left, scope.tensor(right))
        if integers is not None:
            node.quantized = scales(scope, integers, mask=0b10)
    elif scope.splits:
        raise scope.fail("a product of activations", "constant weights for split-bf16")
    else:
        node = _of_activations(scope, scope.tensor(left), scope.tensor(right), binding)
    finish(scope, binding.var, node)


def _is_weight(scope: Scope, expr: Expr) -> bool:
    return expr in scope.values and scope.is_weight(expr)


def _by_weights(scope: Scope, left: Expr, right: Tensor) -> Node:
    rows = math.prod(static_shape(left.ty)[:-1])
    depth, columns = right.shape[-2:]
    result = scope.temp((rows, columns))
    strides = (right.strides or row_major(right.shape))[-2:]
    if scope.splits:
        source = tripled_source(scope, left, (rows, depth))
        weight = tripled_weight(right.view((depth, columns), strides=strides), 0)
    else:
        source = scope.view(scope.plain_activation(scope.tensor(left)), (rows, depth))
        weight = _filters(scope, right, (depth, columns), strides)
    return scope.node("matmul", [source, weight], result)


def _of_activations(scope: Scope, left: Tensor, right: Tensor, binding: relax.VarBinding) -> Node:
    result = static_shape(binding.var.ty)
    operands = [_matrix(scope, _with_rank(scope, tensor, len(result))) for tensor in (left, right)]
    return scope.node("matmul", operands, scope.temp(result))


def _with_rank(scope: Scope, tensor: Tensor, rank: int) -> Tensor:
    missing = rank - len(tensor.shape)
    return scope.view(scope.plain(tensor), (1,) * missing + tensor.shape) if missing else tensor


def _matrix(scope: Scope, tensor: Tensor) -> Tensor:
    """`tensor` itself where its last two axes are dense in either order, else a row-major copy."""
    strides = tensor.dense_strides
    if strides is None or tensor.layout != "NCHW" or tensor.dtype != scope.dtype:
        return scope.plain_activation(tensor)
    transposed = (*tensor.shape[:-2], tensor.shape[-1], tensor.shape[-2])
    swapped = row_major(transposed)
    if tensor.strides is not None and strides == (*swapped[:-2], swapped[-1], swapped[-2]):
        return tensor
    return scope.plain(tensor)


EMITTERS = {
    "nn.conv1d": convolution,
    "nn.conv2d": convolution,
    "nn.conv3d": convolution,
    "nn.conv1d_transpose": transposed_convolution,
    "nn.conv2d_transpose": transposed_convolution,
    "nn.conv3d_transpose": transposed_convolution,
    "matmul": matmul,
}
