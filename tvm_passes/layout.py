"""Layouts by name: order and storage of the elements of a logical NCHW tensor.

An order is an entry of :data:`tvm_passes.layouts.LAYOUTS`, with oneDNN's and TVM's name: ``NCHW``,
``NHWC``, or packed, ``NCHW16c``. Orders are index maps that compose. A tensor that cannot have an
order stays plain, which is row-major.

A layout without a storage stores the elements in the type of the model. ``NHWC.bf16`` stores them
in bfloat16. ``NCHW32c.split`` stores them as pairs of bfloat16 whose sum has 16 bits of
significand: an axis of two, rounded values and rounded remainders, precedes the last axis.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import ml_dtypes
import numpy as np

from tvm_passes.layouts import LAYOUTS
from tvm_passes.precisions import element_storage

if TYPE_CHECKING:
    import tvm

PLAIN = "NCHW"
"""Row-major order, as imported."""

BF16, SPLIT = "bf16", "split"
"""Storages that kernels support."""

LARGEST_BF16 = 2.0**127 * (2 - 2**-7)
"""The largest finite bfloat16; masks often contain larger float32."""


def order_of(layout: str) -> str:
    """Return the order of a layout (``NHWC.bf16`` → ``NHWC``)."""
    return layout.partition(".")[0]


def storage_of(layout: str) -> str:
    """Return the storage of a layout, such as ``bf16``; empty for elements in the model's type."""
    return layout.partition(".")[2]


def stored(order: str, storage: str) -> str:
    """Return the layout with this order and storage."""
    return f"{order}.{storage}" if storage else order


def parts_of(layout: str) -> int:
    """Return the elements in memory per value; several form an axis before the last one."""
    storage = storage_of(layout)
    return element_storage(storage).parts if storage else 1


def block_size(layout: str) -> int | None:
    """Return the channels per block of a packed layout (``NCHW16c`` → 16); None for others."""
    return LAYOUTS.find(order_of(layout)).block


def tensor_layout(shape: Sequence[int], layout: str) -> str:
    """Return the layout of a tensor of logical `shape` in a sub-graph decided for `layout`.

    A tensor stays plain if it is not four-dimensional, or if its channels do not fill whole blocks.
    """
    order = order_of(layout)
    if LAYOUTS.find(order).obstacle(shape):
        order = PLAIN
    return stored(order, storage_of(layout))


def physical_shape(shape: Sequence[int], layout: str) -> tuple[int, ...]:
    """Return the shape in memory of a tensor of logical `shape` in `layout`.

    Raises
    ------
    ValueError
        If it cannot have this layout.
    """
    ordered = LAYOUTS.find(order_of(layout)).physical_shape(shape)
    parts = parts_of(layout)
    return ordered if parts == 1 else (*ordered[:-1], parts, ordered[-1])


def physical_dtype(dtype: str, layout: str) -> str:
    """Return the element type in memory of a tensor that has `dtype` in the model."""
    storage = storage_of(layout)
    return element_storage(storage).dtype if storage else dtype


def logical_shape(shape: Sequence[int], layout: str) -> tuple[int, ...]:
    """Return the logical shape of a tensor in memory: the inverse of :func:`physical_shape`."""
    ordered = tuple(shape) if parts_of(layout) == 1 else (*shape[:-2], shape[-1])
    return LAYOUTS.find(order_of(layout)).logical_shape(ordered)


def has_form(shape: Sequence[int], layout: str) -> bool:
    """Return whether a tensor of the physical `shape` can have `layout`."""
    order = LAYOUTS.find(order_of(layout))
    axes = len(shape) - (parts_of(layout) > 1)
    if not order.any_rank and axes != order.rank:
        return False
    logical = logical_shape(shape, layout)
    return order.obstacle(logical) is None and physical_shape(logical, layout) == tuple(shape)


def index_map(source: str, destination: str) -> tvm.tirx.IndexMap:
    """Return the map from indices in the order `source` to indices in the order `destination`."""
    import tvm

    given, wanted = LAYOUTS.find(source), LAYOUTS.find(destination)
    return tvm.tirx.IndexMap.from_func(
        lambda *axes: list(wanted.to_physical(*given.to_logical(*axes))),
        ndim=given.rank,
        index_dtype="int64",
    )


def convert(array: np.ndarray, source: str, destination: str) -> np.ndarray:
    """Copy `array` from the layout `source` to `destination`: numpy reference of all transforms."""
    values = LAYOUTS.find(order_of(source)).unpacked(_values(array, storage_of(source)))
    moved = LAYOUTS.find(order_of(destination)).packed(values)
    return _store(moved, storage_of(destination))


def _values(array: np.ndarray, storage: str) -> np.ndarray:
    """Return the values of an array in `storage`."""
    if not storage:
        return array
    parts = element_storage(storage).parts
    if parts == 1:
        return array.astype("float32")
    values: np.ndarray = array.astype("float32").sum(axis=-2)
    return values


def _store(array: np.ndarray, storage: str) -> np.ndarray:
    """Return the values of an array, converted to `storage`."""
    if not storage:
        return array
    form = element_storage(storage)
    dtype = getattr(ml_dtypes, form.dtype, form.dtype)
    parts = [array.astype(dtype)]
    while len(parts) < form.parts:
        array = array - parts[-1].astype("float32")
        parts.append(array.astype(dtype))
    return parts[0] if form.parts == 1 else np.stack(parts, axis=-2)
