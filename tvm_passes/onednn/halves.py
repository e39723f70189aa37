"""Products with the accuracy of float32 from bfloat16 operands that are stored as two halves.

The high half is the value rounded to bfloat16, the low half the rounded remainder.
``x·w ≈ high(x)·high(w) + high(x)·low(w) + low(x)·high(w)`` is one product over tripled channels:
``[high, high, low]`` times ``[high, low, high]``. All other operators of such a sub-graph compute
in float32.

A tensor in split storage is a bfloat16 tensor of twice the length along one axis: the channels in
NHWC, the last axis in plain order.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import ml_dtypes
import numpy as np

from tvm_passes.arrays import own_pages, pieces
from tvm_passes.ir import Expr, Var, op_name, static_shape
from tvm_passes.layout import (
    BF16,
    PLAIN,
    SPLIT,
    block_size,
    logical_shape,
    physical_dtype,
    stored,
    tensor_layout,
)
from tvm_passes.onednn.graph import PostOp, StoredTensor
from tvm_passes.onednn.scope import Scope
from tvm_passes.strides import row_major

_HALF = physical_dtype("float32", stored(PLAIN, BF16))
"""Element type of a half."""


def scaled(shape: Sequence[int], axis: int, factor: int) -> tuple[int, ...]:
    """Return `shape` with the extent of `axis` multiplied by `factor`."""
    axis %= len(shape)
    return tuple(size * factor if i == axis else size for i, size in enumerate(shape))


def _axis(layout: str) -> int:
    """Return the axis along which the halves of a tensor are joined."""
    return 1 if layout == "NHWC" else -1


PRODUCTS = frozenset({"nn.conv1d", "nn.conv2d", "nn.conv3d", "matmul"})
"""Operators that take halves, if they have one group or one right-hand matrix."""


def receive(scope: Scope, inputs: Mapping[Var, StoredTensor]) -> None:
    """Make the activations `inputs`, in split storage, values of the sub-graph.

    An activation that has consumers other than products is joined to float32.
    """
    scope.halved = inputs
    for var, tensor in inputs.items():
        readers = [reader.value for reader in scope.consumers.get(var, ())]
        multiplied = all(
            op_name(reader) in PRODUCTS and not reader.args[1].same_as(var) for reader in readers
        )
        if var in scope.results or not multiplied:
            scope.values[var] = join(scope, tensor)


def doubled(scope: Scope, shape: Sequence[int], order: str) -> StoredTensor:
    """Create a tensor in split storage for values of `shape` in `order`."""
    if block_size(order):
        raise scope.fail(f"halves in {order}", "NCHW or NHWC")
    return scope.graph.temp(scaled(shape, _axis(order), 2), order, _HALF)


def received(tensor: StoredTensor, order: str) -> StoredTensor:
    """Convert a parameter of a partition from its physical shape to a tensor in split storage."""
    shape = logical_shape(tensor.shape, stored(order, SPLIT))
    return tensor.view(scaled(shape, _axis(order), 2), order)


def _halves(tensor: StoredTensor) -> list[StoredTensor]:
    """Return views of the high and the low half."""
    axis = _axis(tensor.layout) % len(tensor.shape)
    length = tensor.shape[axis] // 2
    shape = tuple(length if i == axis else size for i, size in enumerate(tensor.shape))
    strides = tensor.dense_strides
    assert strides is not None
    return [tensor.view(shape, strides=strides, skipped=part * length) for part in (0, 1)]


def join(scope: Scope, tensor: StoredTensor) -> StoredTensor:
    """Compute the float32 values of a tensor in split storage."""
    high, low = _halves(tensor)
    values = scope.graph.temp(high.shape, tensor.layout)
    scope.append("reorder", [high], values)
    scope.append("reorder", [low], values).post_ops.append(PostOp(kind="sum"))
    return values


def _part(scope: Scope, values: StoredTensor) -> list[StoredTensor]:
    """Compute the high and the low half of float32 values."""
    high = scope.convert(values, values.layout, _HALF)
    low = scope.graph.temp(values.shape, values.layout, _HALF)
    # The remainder of rounding, negated twice: oneDNN 3.2 is fast only if the first operand has the
    # result's type.
    difference = scope.append("binary", [high, values], low, {"algorithm": "sub"})
    difference.post_ops.append(PostOp(kind="eltwise", algorithm="linear", alpha=-1.0))
    return [high, low]


def part(scope: Scope, values: StoredTensor) -> StoredTensor:
    """Convert float32 values to split storage."""
    axis = _axis(values.layout) % len(values.shape)
    result = scope.graph.temp(scaled(values.shape, axis, 2), values.layout, _HALF)
    scope.append("concat", _part(scope, values), result, {"axis": axis})
    return result


def tripled_source(scope: Scope, expr: Expr, matrix: tuple[int, int] | None = None) -> StoredTensor:
    """Compute ``[high, high, low]`` of `expr` along its channels.

    If given, `matrix` is the extents of the matrix as which `expr` is read; the halves are then
    joined along its columns.
    """
    known = scope.halved.get(expr)
    layout = PLAIN if matrix else tensor_layout(static_shape(expr.ty), scope.layout)
    if known is not None and known.layout == layout:
        halves = _halves(known)
    else:
        if known is not None and expr not in scope.values:
            scope.values[expr] = join(scope, known)
        halves = _part(scope, scope.convert(scope.tensor(expr), layout))
    if matrix:
        step = halves[0].dense_strides
        assert step is not None
        halves = [half.view(matrix, strides=step[-2:]) for half in halves]
    high, low = halves
    result = scope.graph.temp(scaled(high.shape, 1, 3), layout, _HALF)
    scope.append("concat", [high, high, low], result, {"axis": 1})
    return result


def tripled_weight(weight: StoredTensor, axis: int) -> StoredTensor:
    """Return the packable weight of a tripled product, filled by :func:`tripled_values`."""
    shape = scaled(weight.shape, axis, 3)
    return StoredTensor(
        shape,
        weight.storage,
        dtype=_HALF,
        strides=row_major(shape),
        packable=True,
        plain_dtype=_HALF,
        tripled=(weight, axis),
    )


def computed_triple(scope: Scope, weight: StoredTensor, axis: int) -> StoredTensor:
    """Compute ``[high, low, high]`` along `axis` of a float32 weight at run time."""
    high, low = _part(scope, scope.plain(weight))
    result = scope.graph.temp(scaled(weight.shape, axis, 3), PLAIN, _HALF)
    scope.append("concat", [high, low, high], result, {"axis": axis})
    return result


def tripled_values(array: np.ndarray, weight: StoredTensor, axis: int) -> np.ndarray:
    """Compute ``[high, low, high]`` along `axis` of a float32 array, strided as `weight`."""
    strides = [stride * array.itemsize for stride in weight.dense_strides or ()]
    values = np.lib.stride_tricks.as_strided(array, weight.shape, strides)
    shape = list(values.shape)
    count, shape[axis] = shape[axis], 3 * shape[axis]
    tripled = own_pages(tuple(shape), np.dtype(ml_dtypes.bfloat16))
    source, target = np.moveaxis(values, axis, 0), np.moveaxis(tripled, axis, 0)
    for some in pieces(count, values.nbytes):
        high = source[some].astype(ml_dtypes.bfloat16)
        low = source[some] - high.astype("float32")
        for part, half in enumerate((high, low, high)):
            target[part * count + some.start : part * count + some.stop] = half
    return tripled
