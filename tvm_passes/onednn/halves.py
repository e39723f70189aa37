"""Products as exact as float32's from bfloat16 operands: of values that are stored as halves, high and low.

``x·w ≈ high(x)·high(w) + high(x)·low(w) + low(x)·high(w)`` is one product over tripled channels: ``[high, high, low]``
against ``[high, low, high]``. All else in such a sub-graph is float32.

A tensor in split storage is a bfloat16 tensor of twice the length along one axis: of the channels in NHWC, of the last
axis in plain order.
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
from tvm_passes.onednn.graph import PostOp, StoredTensor, row_major
from tvm_passes.onednn.scope import Scope

_HALF = physical_dtype("float32", stored(PLAIN, BF16))


def scaled(shape: Sequence[int], axis: int, factor: int) -> tuple[int, ...]:
    """`shape`, `factor` times as long along `axis`."""
    axis %= len(shape)
    return tuple(size * factor if i == axis else size for i, size in enumerate(shape))


def _axis(layout: str) -> int:
    return 1 if layout == "NHWC" else -1


PRODUCTS = frozenset({"nn.conv1d", "nn.conv2d", "nn.conv3d", "matmul"})
"""Operators that take halves, where they have one group, or one right-hand matrix."""


def receive(scope: Scope, inputs: Mapping[Var, StoredTensor]) -> None:
    """Let the activations `inputs`, in split storage, be values of the sub-graph; joined where they are not just multiplied."""
    scope.halved = inputs
    for var, tensor in inputs.items():
        readers = [reader.value for reader in scope.consumers.get(var, ())]
        multiplied = all(
            op_name(reader) in PRODUCTS and not reader.args[1].same_as(var) for reader in readers
        )
        if var in scope.results or not multiplied:
            scope.values[var] = join(scope, tensor)


def doubled(scope: Scope, shape: Sequence[int], order: str) -> StoredTensor:
    """A new tensor in split storage for values of `shape` in `order`."""
    if block_size(order):
        raise scope.fail(f"halves in {order}", "NCHW or NHWC")
    return scope.graph.temp(scaled(shape, _axis(order), 2), order, _HALF)


def received(tensor: StoredTensor, order: str) -> StoredTensor:
    """A parameter of a partition, of the physical shape, as a tensor in split storage."""
    shape = logical_shape(tensor.shape, stored(order, SPLIT))
    return tensor.view(scaled(shape, _axis(order), 2), order)


def _halves(tensor: StoredTensor) -> list[StoredTensor]:
    axis = _axis(tensor.layout) % len(tensor.shape)
    length = tensor.shape[axis] // 2
    shape = tuple(length if i == axis else size for i, size in enumerate(tensor.shape))
    strides = tensor.dense_strides
    assert strides is not None
    return [tensor.view(shape, strides=strides, skipped=part * length) for part in (0, 1)]


def join(scope: Scope, tensor: StoredTensor) -> StoredTensor:
    """The float32 values of a tensor in split storage."""
    high, low = _halves(tensor)
    values = scope.graph.temp(high.shape, tensor.layout)
    scope.append("reorder", [high], values)
    scope.append("reorder", [low], values).post_ops.append(PostOp(kind="sum"))
    return values


def _part(scope: Scope, values: StoredTensor) -> list[StoredTensor]:
    high = scope.convert(values, values.layout, _HALF)
    low = scope.graph.temp(values.shape, values.layout, _HALF)
    # What rounding left, negated twice: oneDNN 3.2 is fast only where the first operand has the result's type.
    difference = scope.append("binary", [high, values], low, {"algorithm": "sub"})
    difference.post_ops.append(PostOp(kind="eltwise", algorithm="linear", alpha=-1.0))
    return [high, low]


def part(scope: Scope, values: StoredTensor) -> StoredTensor:
    """Float32 values in split storage."""
    axis = _axis(values.layout) % len(values.shape)
    result = scope.graph.temp(scaled(values.shape, axis, 2), values.layout, _HALF)
    scope.append("concat", _part(scope, values), result, {"axis": axis})
    return result


def tripled_source(scope: Scope, expr: Expr, matrix: tuple[int, int] | None = None) -> StoredTensor:
    """``[high, high, low]`` of `expr` along its channels; as a `matrix` of these extents, along the columns."""
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
    """A packable weight that :func:`tripled_values` fills, as the product with tripled channels reads it."""
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
    """``[high, low, high]`` along `axis` of a float32 weight that is computed at run time."""
    high, low = _part(scope, scope.plain(weight))
    result = scope.graph.temp(scaled(weight.shape, axis, 3), PLAIN, _HALF)
    scope.append("concat", [high, low, high], result, {"axis": axis})
    return result


def tripled_values(array: np.ndarray, weight: StoredTensor, axis: int) -> np.ndarray:
    """``[high, low, high]`` along `axis` of a float32 array that lies as `weight` says."""
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
