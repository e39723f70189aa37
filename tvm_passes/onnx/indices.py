"""Converters of operators that read or write at indices.

A negative index counts from the end. An index outside of the tensor is rejected before the
conversion if it is a constant, and at run time if it is an input of the model. An index that the
network computes is taken modulo the size, so that nothing outside of a tensor is read or written.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from tvm import relax
from tvm.relax import Expr
from tvm.relax.frontend.onnx import onnx_frontend

from tvm_passes.onnx.padding import static_shape
from tvm_passes.onnx.support import Converter, array_of, constant, stock


def _inside(builder: relax.BlockBuilder, indices: Expr, sizes: Any) -> Expr:
    """Return `indices` in the range from 0 to `sizes` - 1; `sizes` broadcasts to them."""
    known, dtype = array_of(indices), indices.ty.dtype
    if known is not None:
        return constant(np.where(known < 0, known + sizes, known), dtype)
    return builder.emit(relax.op.floor_mod(indices, constant(sizes, dtype)))


def gather(
    builder: relax.BlockBuilder,
    inputs: Sequence[Any],
    attributes: dict[str, Any],
    _state: Any,
    _opset: int,
) -> Expr:
    """Convert Gather to ``take``."""
    data, indices = inputs[0], inputs[1]
    shape = static_shape(data)
    axis = attributes.get("axis", 0) % len(shape)
    if array_of(indices) is None:
        return relax.op.take(data, indices, axis, mode="wrap")
    positive = constant(array_of(_inside(builder, indices, shape[axis])), "int64")
    return relax.op.take(data, positive, axis, mode="clip")


def along_axis(name: str) -> Converter:
    """Make the converter of an operator with indices along one axis.

    It is TVM's converter, called with non-negative indices.
    """

    def convert(
        builder: relax.BlockBuilder,
        inputs: Sequence[Any],
        attributes: dict[str, Any],
        state: Any,
        opset: int,
    ) -> Expr:
        shape = static_shape(inputs[0])
        size = shape[attributes.get("axis", 0) % len(shape)]
        return _with_indices(name, _inside(builder, inputs[1], size))(
            builder, inputs, attributes, state, opset
        )

    return convert


def coordinates(name: str) -> Converter:
    """Make the converter of an operator whose last dimension of indices holds coordinates.

    It is TVM's converter, called with non-negative coordinates.
    """

    def convert(
        builder: relax.BlockBuilder,
        inputs: Sequence[Any],
        attributes: dict[str, Any],
        state: Any,
        opset: int,
    ) -> Expr:
        batch, count = attributes.get("batch_dims", 0), static_shape(inputs[1])[-1]
        sizes = np.asarray(static_shape(inputs[0])[batch : batch + count])
        return _with_indices(name, _inside(builder, inputs[1], sizes))(
            builder, inputs, attributes, state, opset
        )

    return convert


def _with_indices(name: str, indices: Expr) -> Converter:
    def convert(
        builder: relax.BlockBuilder,
        inputs: Sequence[Any],
        attributes: dict[str, Any],
        state: Any,
        opset: int,
    ) -> Expr:
        replaced = onnx_frontend.onnx_input([inputs[0], indices, *inputs[2:]])
        return stock(name)(builder, replaced, attributes, state, opset)

    return convert


def one_hot(
    builder: relax.BlockBuilder,
    inputs: Sequence[Any],
    attributes: dict[str, Any],
    state: Any,
    opset: int,
) -> Expr:
    """Convert OneHot: compare each index with all positions; an index outside matches none.

    TVM's converter, which loses the type of the values, is used if depth or values are computed.
    """
    indices, depth, values = inputs[0], array_of(inputs[1]), array_of(inputs[2])
    if depth is None or values is None:
        return stock("OneHot")(builder, inputs, attributes, state, opset)
    count, dtype = int(depth.reshape(-1)[0]), indices.ty.dtype
    rank = len(static_shape(indices))
    axis = attributes.get("axis", -1) % (rank + 1)
    from_end = builder.emit(relax.op.add(indices, constant(count, dtype)))
    is_negative = builder.emit(relax.op.less(indices, constant(0, dtype)))
    place = builder.emit(relax.op.where(is_negative, from_end, indices))
    column = builder.emit(relax.op.expand_dims(place, axis))
    places = np.arange(count).reshape([-1 if each == axis else 1 for each in range(rank + 1)])
    is_there = builder.emit(relax.op.equal(column, constant(places, dtype)))
    off, on = (constant(value, values.dtype) for value in values)
    return relax.op.where(is_there, on, off)


gather_elements = along_axis("GatherElements")
gather_nd = coordinates("GatherND")
scatter_elements = along_axis("ScatterElements")
scatter_nd = coordinates("ScatterND")
