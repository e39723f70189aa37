"""Emitters of convolutions and matrix products."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

from tvm import relax
from tvm.ir import Call

from tvm_passes.ir import Expr, static_shape
from tvm_passes.layout import PLAIN
from tvm_passes.onednn.epilogue import finish
from tvm_passes.onednn.graph import Primitive, StoredTensor
from tvm_passes.onednn.halves import computed_triple, tripled_source, tripled_weight
from tvm_passes.onednn.quantized import product, scales
from tvm_passes.onednn.scope import Scope
from tvm_passes.strides import row_major

_DATA_LAYOUTS = ("NCW", "NCHW", "NCDHW")
"""Layouts of activations that convolutions accept."""
_KERNEL_LAYOUTS = ("OIW", "OIHW", "OIDHW")
"""Layouts of filters that convolutions accept: O output channels, I input channels."""
_TRANSPOSED_LAYOUTS = ("IOW", "IOHW", "IODHW")
"""Layouts of filters that transposed convolutions accept."""


def ints(values: Iterable[Any]) -> list[int]:
    """Convert attribute values to Python integers."""
    return [int(value) for value in values]


def window(call: Call) -> dict[str, list[int]]:
    """Convert the attributes that convolution and pooling share to oneDNN's conventions.

    Relax counts a dilation of one as dense, oneDNN a dilation of zero.
    """
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
    """Raise unless the data layout is plain and the filter layout is one of `kernels`."""
    data, kernel = str(call.attrs.data_layout), str(call.attrs.kernel_layout)
    if data not in _DATA_LAYOUTS or kernel not in kernels:
        raise scope.fail(f"layouts {data} and {kernel}", "the logical form NCHW with " + kernels[1])


def convolution(scope: Scope, binding: relax.VarBinding) -> None:
    """Emit ``nn.conv1d``, ``nn.conv2d`` or ``nn.conv3d``."""
    call = binding.value
    _check_layouts(scope, call, _KERNEL_LAYOUTS)
    data, filters_ = call.args
    integers = product(scope, data, filters_)
    if integers is not None:
        data, filters_ = (operand.source for operand in integers)
    weight, strides = _strided(scope, scope.tensor(filters_))
    groups = int(call.attrs.groups)
    outputs, inputs, *kernel = weight.shape
    if scope.splits:
        source, filters = _tripled(scope, data, weight, groups)
    else:
        source = scope.activation(data)
        shape = weight.shape
        if groups > 1:
            shape = (groups, outputs // groups, inputs, *kernel)
            strides = (outputs // groups * strides[0], *strides)
        filters = _filters(scope, weight, shape, strides)
    result = scope.result(static_shape(binding.var.ty))
    node = scope.node("convolution", [source, filters], result, window(call))
    if integers is not None:
        node.quantized = scales(scope, integers, mask=0b11 if groups > 1 else 0b1)
    finish(scope, binding.var, node)


def _strided(scope: Scope, weight: StoredTensor) -> tuple[StoredTensor, tuple[int, ...]]:
    """Return `weight` and its strides in elements; a form without strides is copied first."""
    if weight.dense_strides is None:
        weight = scope.plain(weight)
    return weight, weight.dense_strides or row_major(weight.shape)


def _filters(
    scope: Scope, weight: StoredTensor, shape: Sequence[int], strides: Sequence[int]
) -> StoredTensor:
    """Return `weight` with the given axes, in the form that the primitive chooses.

    A constant weight is packed when the model is built. A weight that is computed at run time is
    packed before each use. A small constant of the graph itself is read as it is.
    """
    if weight.storage.kind == "const":
        constant = weight.view(shape, strides=strides)
        return constant if weight.dtype == scope.dtype else scope.plain_activation(constant)
    return StoredTensor(
        tuple(shape),
        weight.storage,
        dtype=weight.dtype if scope.splits else scope.stored(weight.dtype),
        strides=tuple(strides),
        offset=weight.offset,
        packable=True,
        plain_dtype=weight.dtype,
    )


def _tripled(
    scope: Scope, source: Expr, weight: StoredTensor, groups: int
) -> tuple[StoredTensor, StoredTensor]:
    """Return the tripled source and filters of a split-bf16 convolution."""
    if groups > 1:
        raise scope.fail(f"{groups} groups", "one group for split-bf16")
    return tripled_source(scope, source), _tripled_filters(scope, weight, axis=1)


def _tripled_filters(scope: Scope, weight: StoredTensor, axis: int) -> StoredTensor:
    """Return `weight` as halves; the halves of a constant weight are computed at build time."""
    if weight.storage.kind == "weight":
        return tripled_weight(weight, axis)
    filters = computed_triple(scope, weight, axis)
    return _filters(scope, filters, filters.shape, row_major(filters.shape))


def transposed_convolution(scope: Scope, binding: relax.VarBinding) -> None:
    """Emit ``nn.conv1d_transpose``, ``nn.conv2d_transpose`` or ``nn.conv3d_transpose``."""
    call = binding.value
    _check_layouts(scope, call, _TRANSPOSED_LAYOUTS)
    weight, (by_input, by_output, *rest) = _strided(scope, scope.tensor(call.args[1]))
    groups = int(call.attrs.groups)
    inputs, outputs, *kernel = weight.shape
    shape, strides = (outputs, inputs, *kernel), (by_output, by_input, *rest)
    if groups > 1:
        shape = (groups, outputs, inputs // groups, *kernel)
        strides = (inputs // groups * by_input, *strides)
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
    """Emit ``matmul``: by one matrix, or of two batches of matrices.

    A constant right-hand matrix is packed at build time.
    """
    left, right = binding.value.args
    integers = product(scope, left, right)
    if integers is not None and _is_weight(scope, integers[1].source):
        left, right = (operand.source for operand in integers)
    else:
        integers = None
    shapes = [static_shape(argument.ty) for argument in (left, right)]
    if any(len(shape) < 2 for shape in shapes):
        raise scope.fail(f"operands of shapes {shapes[0]} and {shapes[1]}", "matrices")
    one_matrix = math.prod(shapes[1][:-2]) == 1
    folds = len(shapes[0]) > 2 or scope.splits or _is_weight(scope, right)
    if one_matrix and folds:
        node = _by_matrix(scope, left, scope.tensor(right))
        if integers is not None:
            node.quantized = scales(scope, integers, mask=0b10)
    elif scope.splits:
        raise scope.fail("a product of several matrices", "one right-hand matrix for split-bf16")
    else:
        node = _of_activations(scope, scope.tensor(left), scope.tensor(right), binding)
    finish(scope, binding.var, node)


def _is_weight(scope: Scope, expr: Expr) -> bool:
    """Return whether `expr` is a known value that is constant at build time."""
    return expr in scope.values and scope.is_weight(expr)


def _by_matrix(scope: Scope, left: Expr, right: StoredTensor) -> Primitive:
    """Emit the product of all rows of `left` and one matrix, constant or computed at run time."""
    rows = math.prod(static_shape(left.ty)[:-1])
    depth, columns = right.shape[-2:]
    result = scope.temp((rows, columns))
    if scope.splits:
        source = tripled_source(scope, left, (rows, depth))
        weight = _tripled_filters(scope, _as_matrix(scope, right), axis=0)
        return scope.node("matmul", [source, weight], result)
    source = scope.view(scope.plain_activation(scope.tensor(left)), (rows, depth))
    weight = _as_matrix(scope, right)
    if right.storage.kind == "weight":
        strides = weight.strides or row_major(weight.shape)
        return scope.node(
            "matmul", [source, _filters(scope, weight, weight.shape, strides)], result
        )
    # oneDNN's products pack a plain matrix themselves while they compute.
    if weight.dtype != source.dtype:
        weight = scope.plain_activation(weight)
    return scope.node("matmul", [source, weight], result)


def _as_matrix(scope: Scope, tensor: StoredTensor) -> StoredTensor:
    """Return the only matrix that `tensor` holds; its axes may have either order in memory."""
    if tensor.layout != PLAIN:
        tensor = scope.plain(tensor)
    strides = None if tensor.strides is None else tensor.strides[-2:]
    return tensor.view(tensor.shape[-2:], strides=strides)


def _of_activations(
    scope: Scope, left: StoredTensor, right: StoredTensor, binding: relax.VarBinding
) -> Primitive:
    """Emit a product of two batches of matrices."""
    result = static_shape(binding.var.ty)
    operands = [_matrix(scope, _with_rank(scope, tensor, len(result))) for tensor in (left, right)]
    return scope.node("matmul", operands, scope.temp(result))


def _with_rank(scope: Scope, tensor: StoredTensor, rank: int) -> StoredTensor:
    """Return `tensor` with leading axes of one, up to `rank`."""
    missing = rank - len(tensor.shape)
    return scope.view(scope.plain(tensor), (1,) * missing + tensor.shape) if missing else tensor


def _matrix(scope: Scope, tensor: StoredTensor) -> StoredTensor:
    """Return `tensor` if its last two axes are dense in either order, else a row-major copy."""
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
"""Emitter by Relax operator."""
