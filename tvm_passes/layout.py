"""Layouts: in which order, and in which storage, the elements of a logical NCHW tensor lie in memory.

An order is named as oneDNN and TVM name it: ``NCHW``, ``NHWC``, or packed, ``NCHW16c``; orders are index maps that
compose. A tensor that is not four-dimensional has only the plain, row-major order, which is also what ``NCHW`` means for
one that is.

A layout that says no more stores the elements as the model types them. ``NHWC.bf16`` stores them in bfloat16;
``NCHW32c.split`` as pairs of bfloat16 whose sum keeps 16 bits of the significand: an axis of two, the rounded values and
what rounding left, comes before the last axis.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import ml_dtypes
import numpy as np

if TYPE_CHECKING:
    import tvm

PLAIN = "NCHW"
"""Row-major, as imported."""

LAYOUTS = ("NCHW", "NHWC", "NCHW4c", "NCHW8c", "NCHW16c", "NCHW32c")
"""Every order that a decision may name."""

BF16, SPLIT = "bf16", "split"

STORAGES: Mapping[str, str] = {"f32": "", "bf16": BF16, "split-bf16": SPLIT, "int8": ""}
"""Precision of a decision → how its activations are stored; int8 takes the integers that the model itself has."""

LARGEST_BF16 = 2.0**127 * (2 - 2**-7)
"""The largest finite bfloat16; float32 has larger ones, of which masks consist."""

_PACKED = re.compile(r"NCHW(\d+)c")


def order_of(layout: str) -> str:
    """The order alone (``NHWC.bf16`` → ``NHWC``)."""
    return layout.partition(".")[0]


def storage_of(layout: str) -> str:
    """The storage alone: ``bf16``, ``split``; empty for elements as the model types them."""
    return layout.partition(".")[2]


def stored(order: str, storage: str) -> str:
    """The layout of this order and storage."""
    return f"{order}.{storage}" if storage else order


def block_size(layout: str) -> int | None:
    """Channels per block of a packed layout (``NCHW16c`` → 16); None for any other."""
    match = _PACKED.fullmatch(order_of(layout))
    return int(match.group(1)) if match else None


def tensor_layout(shape: Sequence[int], layout: str) -> str:
    """The layout that a tensor takes where its sub-graph's decision says `layout`.

    A tensor that is not four-dimensional, or whose channels do not fill whole blocks, stays plain.
    """
    order = order_of(layout)
    block = block_size(order)
    if len(shape) != 4 or (block and shape[1] % block):
        order = PLAIN
    return stored(order, storage_of(layout))


def physical_shape(shape: Sequence[int], layout: str) -> tuple[int, ...]:
    """Shape in memory of a logical NCHW `shape` in `layout`."""
    ordered = _ordered_shape(shape, order_of(layout))
    if storage_of(layout) == SPLIT:
        return (*ordered[:-1], 2, ordered[-1])
    return ordered


def _ordered_shape(shape: Sequence[int], order: str) -> tuple[int, ...]:
    if order == PLAIN:
        return tuple(shape)
    n, c, h, w = shape
    if order == "NHWC":
        return (n, h, w, c)
    block = block_size(order)
    if block is None or c % block:
        raise ValueError(f"{tuple(shape)} has no {order} form")
    return (n, c // block, h, w, block)


def physical_dtype(dtype: str, layout: str) -> str:
    """Type of the elements in memory of a tensor that the model types `dtype`."""
    return "bfloat16" if storage_of(layout) else dtype


def logical_shape(shape: Sequence[int], layout: str) -> tuple[int, ...]:
    """Inverse of :func:`physical_shape`."""
    order = order_of(layout)
    ordered = tuple(shape)
    if storage_of(layout) == SPLIT:
        ordered = (*ordered[:-2], ordered[-1])
    if order == PLAIN:
        return ordered
    if order == "NHWC":
        n, h, w, c = ordered
        return (n, c, h, w)
    n, chunks, h, w, block = ordered
    return (n, chunks * block, h, w)


def _to_physical(layout: str, n: Any, c: Any, h: Any, w: Any) -> list[Any]:
    """Indices, integers or TIR expressions, in `layout` of the element (n, c, h, w)."""
    if layout == PLAIN:
        return [n, c, h, w]
    if layout == "NHWC":
        return [n, h, w, c]
    block = block_size(layout) or 1
    return [n, c // block, h, w, c % block]


def _to_logical(layout: str, *axes: Any) -> list[Any]:
    """Inverse of :func:`_to_physical`."""
    if layout == PLAIN:
        return list(axes)
    if layout == "NHWC":
        n, h, w, c = axes
        return [n, c, h, w]
    n, chunk, h, w, lane = axes
    return [n, chunk * (block_size(layout) or 1) + lane, h, w]


def index_map(source: str, destination: str) -> tvm.tirx.IndexMap:
    """The map from indices in the order `source` to indices in the order `destination`."""
    import tvm

    rank = 5 if block_size(source) else 4
    return tvm.tirx.IndexMap.from_func(
        lambda *axes: _to_physical(destination, *_to_logical(source, *axes)),
        ndim=rank,
        index_dtype="int64",
    )


def convert(array: np.ndarray, source: str, destination: str) -> np.ndarray:
    """Copy `array`, stored in `source`, into `destination` (numpy reference of every transform)."""
    values = _values(array, storage_of(source))
    moved = _reorder(values, order_of(source), order_of(destination))
    return _store(moved, storage_of(destination))


def _values(array: np.ndarray, storage: str) -> np.ndarray:
    if storage == SPLIT:
        return array[..., 0, :].astype("float32") + array[..., 1, :].astype("float32")
    return array.astype("float32") if storage == BF16 else array


def _store(array: np.ndarray, storage: str) -> np.ndarray:
    if not storage:
        return array
    high = array.astype(ml_dtypes.bfloat16)
    if storage == BF16:
        return high
    low = (array - high.astype("float32")).astype(ml_dtypes.bfloat16)
    return np.stack([high, low], axis=-2)


def _reorder(array: np.ndarray, source: str, destination: str) -> np.ndarray:
    logical = array
    if source == "NHWC":
        logical = array.transpose(0, 3, 1, 2)
    elif block_size(source):
        logical = array.transpose(0, 1, 4, 2, 3).reshape(logical_shape(array.shape, source))
    if destination == PLAIN:
        return np.ascontiguousarray(logical)
    if destination == "NHWC":
        return np.ascontiguousarray(logical.transpose(0, 2, 3, 1))
    n, chunks, h, w, block = physical_shape(logical.shape, destination)
    return np.ascontiguousarray(logical.reshape(n, chunks, block, h, w).transpose(0, 1, 3, 4, 2))
