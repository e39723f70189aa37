"""One layout: an order of a logical NCHW tensor's elements in memory, and its properties."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tvm_passes.efficiency import Efficiency

Index = Any
"""An integer, an array of integers or a TIR expression."""

IndexFunction = Callable[..., Sequence[Index]]
"""Converts indices between two orders, by arithmetic that every kind of `Index` supports."""

ReasonAgainst = Callable[[Sequence[int]], "str | None"]
"""Returns the reason why tensors of a logical shape cannot have a layout; None if they can."""


def _no_reason(_shape: Sequence[int]) -> str | None:
    return None


@dataclass(frozen=True, kw_only=True)
class Layout:
    """An order of elements in memory: two index functions; shapes and copies follow from them.

    Both functions must be monotone in each index, as permutations and blocks of axes are: shapes
    follow from the position of the last element.
    """

    name: str
    """Name in decisions, such as ``NHWC``."""
    documentation: str
    """One sentence for users."""
    to_physical: IndexFunction
    """Logical indices ``(n, c, h, w)`` → indices in memory."""
    to_logical: IndexFunction
    """Indices in memory → logical indices; the inverse of `to_physical`."""
    rank: int = 4
    """Number of axes in memory of a four-dimensional tensor."""
    any_rank: bool = False
    """True if tensors of every rank have this layout; else only four-dimensional ones have."""
    block: int | None = None
    """Channels per block; None if there are no blocks."""
    restriction: ReasonAgainst = _no_reason
    """Returns a further reason against four-dimensional shapes whose channels fill whole blocks."""
    generic: tuple[str, ...] = ()
    """Units whose generic code supports this layout; such code uses the index functions."""
    efficiencies: Mapping[str, Efficiency] = field(default_factory=dict)
    """Efficiency by unit, if it differs from the unit's own; the prior of cost models."""
    feature: int | None = None
    """Position of its column among those of layouts in learned cost models.

    Fixed as long as the version of the features is. None for a layout without a column, which
    encodes as "other".
    """
    device_feature: bool = False
    """True if learned cost models of devices have a column for it."""

    def obstacle(self, shape: Sequence[int]) -> str | None:
        """Return the reason why tensors of the logical `shape` cannot have this layout, or None."""
        if self.any_rank:
            return None
        if len(shape) != 4:
            return f"{len(shape)} dimensions, expected 4"
        if self.block and shape[1] % self.block:
            return f"{shape[1]} channels, expected a multiple of {self.block}"
        return self.restriction(shape)

    def physical_shape(self, shape: Sequence[int]) -> tuple[int, ...]:
        """Return the shape in memory of a tensor of the logical `shape`.

        Raises
        ------
        ValueError
            If the tensor cannot have this layout.
        """
        if reason := self.obstacle(shape):
            raise ValueError(f"{tuple(shape)} has no {self.name} form: {reason}")
        return _extents(self.to_physical, shape)

    def logical_shape(self, shape: Sequence[int]) -> tuple[int, ...]:
        """Return the logical shape of a tensor of the physical `shape`."""
        return _extents(self.to_logical, shape)

    def packed(self, array: np.ndarray) -> np.ndarray:
        """Return a copy of a logical array in this order."""
        shape = self.physical_shape(array.shape)
        view = _view(array, shape, self.to_logical)
        return _gathered(array, shape, self.to_logical) if view is None else view.copy()

    def unpacked(self, array: np.ndarray) -> np.ndarray:
        """Return a logical copy of an array in this order."""
        logical = np.empty(self.logical_shape(array.shape), array.dtype)
        view = _view(logical, array.shape, self.to_logical)
        if view is None:
            return _gathered(array, logical.shape, self.to_physical)
        view[...] = array
        return logical


def _extents(function: IndexFunction, shape: Sequence[int]) -> tuple[int, ...]:
    last = function(*(extent - 1 for extent in shape))
    return tuple(index + 1 for index in last)


def _view(array: np.ndarray, shape: Sequence[int], source: IndexFunction) -> np.ndarray | None:
    """View of `array` with `shape` whose element at some indices is at ``source(*indices)``.

    None if `source` is not linear. To copy the view is several times as fast as to gather.
    """
    rank = len(shape)
    steps = [source(*(int(axis == one) for one in range(rank))) for axis in range(rank)]
    indices = np.indices(shape, sparse=True)
    for axis, places in enumerate(source(*indices)):
        # An axis without influence would make the sum as large as the tensor.
        parts = [
            step[axis] * index for step, index in zip(steps, indices, strict=True) if step[axis]
        ]
        if not np.all(sum(parts, np.int64(0)) == places):
            return None
    strides = [
        sum(stride * distance for stride, distance in zip(array.strides, step, strict=True))
        for step in steps
    ]
    return np.lib.stride_tricks.as_strided(array, shape, strides)


def _gathered(array: np.ndarray, shape: Sequence[int], source: IndexFunction) -> np.ndarray:
    """Array of `shape` whose element at some indices is that of `array` at ``source(*indices)``."""
    taken: np.ndarray = array[tuple(source(*np.indices(shape, sparse=True)))]
    return np.ascontiguousarray(taken)
