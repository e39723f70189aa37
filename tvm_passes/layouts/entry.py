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
"""Indices of one form → indices of the other, by arithmetic that all kinds of `Index` have."""

ReasonAgainst = Callable[[Sequence[int]], "str | None"]
"""Logical shape → the reason why no such tensor has a layout; None if it has."""


def _no_reason(_shape: Sequence[int]) -> str | None:
    return None


@dataclass(frozen=True, kw_only=True)
class Layout:
    """An order of elements in memory: two index functions; shapes and copies follow from them.

    Both functions are monotone in each index, as permutations and blocks of axes are: the last
    element is last in memory.
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
    """Channels per block; None if channels are in no blocks."""
    restriction: ReasonAgainst = _no_reason
    """Further reason why a four-dimensional tensor of whole blocks has no such form."""
    generic: tuple[str, ...] = ()
    """Units whose generic code computes in this layout, by its index functions."""
    efficiencies: Mapping[str, Efficiency] = field(default_factory=dict)
    """Efficiency by unit, where it differs from the unit's own; the prior of cost models."""
    feature: int | None = None
    """Place among the layouts that have a column of their own in learned cost models.

    The version of the features fixes it. None for all others: they encode as "other".
    """
    device_feature: bool = False
    """True if learned cost models of devices have a column for it."""

    def obstacle(self, shape: Sequence[int]) -> str | None:
        """Reason why no tensor of the logical `shape` has this layout; None if it has."""
        if self.any_rank:
            return None
        if len(shape) != 4:
            return f"{len(shape)} dimensions, expected 4"
        if self.block and shape[1] % self.block:
            return f"{shape[1]} channels, expected a multiple of {self.block}"
        return self.restriction(shape)

    def physical_shape(self, shape: Sequence[int]) -> tuple[int, ...]:
        """Shape in memory of a tensor of the logical `shape`.

        Raises
        ------
        ValueError
            If it has no such form.
        """
        if reason := self.obstacle(shape):
            raise ValueError(f"{tuple(shape)} has no {self.name} form: {reason}")
        return _extents(self.to_physical, shape)

    def logical_shape(self, shape: Sequence[int]) -> tuple[int, ...]:
        """Logical shape of a tensor of the physical `shape`."""
        return _extents(self.to_logical, shape)

    def packed(self, array: np.ndarray) -> np.ndarray:
        """Copy a logical array into this order."""
        return _gathered(array, self.physical_shape(array.shape), self.to_logical)

    def unpacked(self, array: np.ndarray) -> np.ndarray:
        """Copy an array in this order into the logical one."""
        return _gathered(array, self.logical_shape(array.shape), self.to_physical)


def _extents(function: IndexFunction, shape: Sequence[int]) -> tuple[int, ...]:
    last = function(*(extent - 1 for extent in shape))
    return tuple(index + 1 for index in last)


def _gathered(array: np.ndarray, shape: Sequence[int], source: IndexFunction) -> np.ndarray:
    """Array of `shape` whose element at some indices is that of `array` at ``source(*indices)``."""
    taken: np.ndarray = array[tuple(source(*np.indices(shape, sparse=True)))]
    return np.ascontiguousarray(taken)
