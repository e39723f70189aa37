"""Layouts: how a logical NCHW tensor lies in memory, as index maps that compose.

A layout is named as oneDNN and TVM name it: ``NCHW``, ``NHWC``, or packed, ``NCHW16c``. A tensor that is not
four-dimensional has only the plain, row-major layout, which is also what ``NCHW`` means for one that is.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import tvm

PLAIN = "NCHW"
"""Row-major, as imported."""

LAYOUTS = ("NCHW", "NHWC", "NCHW8c", "NCHW16c")
"""Every layout that a decision may name."""

_PACKED = re.compile(r"NCHW(\d+)c")


def block_size(layout: str) -> int | None:
    """Channels per block of a packed layout (``NCHW16c`` → 16); None for any other."""
    match = _PACKED.fullmatch(layout)
    return int(match.group(1)) if match else None


def tensor_layout(shape: Sequence[int], layout: str) -> str:
    """The layout that a tensor takes where its sub-graph's decision says `layout`.

    A tensor that is not four-dimensional, or whose channels do not fill whole blocks, stays plain.
    """
    if len(shape) != 4:
        return PLAIN
    block = block_size(layout)
    return PLAIN if block and shape[1] % block else layout


def physical_shape(shape: Sequence[int], layout: str) -> tuple[int, ...]:
    """Shape in memory of a logical NCHW `shape` in `layout`."""
    if layout == PLAIN:
        return tuple(shape)
    n, c, h, w = shape
    if layout == "NHWC":
        return (n, h, w, c)
    block = block_size(layout)
    if block is None or c % block:
        raise ValueError(f"{tuple(shape)} has no {layout} form")
    return (n, c // block, h, w, block)


def logical_shape(shape: Sequence[int], layout: str) -> tuple[int, ...]:
    """Inverse of :func:`physical_shape`."""
    if layout == PLAIN:
        return tuple(shape)
    if layout == "NHWC":
        n, h, w, c = shape
        return (n, c, h, w)
    n, chunks, h, w, block = shape
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
    """The map from indices in `source` to indices in `destination`."""
    rank = 5 if block_size(source) else 4
    return tvm.tirx.IndexMap.from_func(
        lambda *axes: _to_physical(destination, *_to_logical(source, *axes)),
        ndim=rank,
        index_dtype="int64",
    )


def convert(array: np.ndarray, source: str, destination: str) -> np.ndarray:
    """Copy `array`, stored in `source`, into `destination` (numpy reference of the index map)."""
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
