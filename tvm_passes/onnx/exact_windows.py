"""Windows over spatial axes, for numpy references of convolutions and poolings."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

Index = Any
"""A tuple of indices into an array; numpy's own type of it is private."""


@dataclass(frozen=True, kw_only=True)
class SpatialWindow:
    """A window that slides over spatial axes; each tuple has one entry per axis."""

    sizes: tuple[int, ...]
    """Extents of the tensor that the window moves over, without padding."""
    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    before: tuple[int, ...]
    """Padding before the first element of each axis."""
    after: tuple[int, ...]
    """Padding after the last element of each axis."""
    ceil_mode: bool = False

    @classmethod
    def of(
        cls, sizes: Sequence[int], kernel: Sequence[int], attributes: Mapping[str, Any]
    ) -> SpatialWindow:
        """Make the window that the attributes of a node describe."""
        axes = len(sizes)
        strides = tuple(attributes.get("strides") or (1,) * axes)
        dilations = tuple(attributes.get("dilations") or (1,) * axes)
        pads = tuple(attributes.get("pads") or (0,) * (2 * axes))
        auto = attributes.get("auto_pad") or "NOTSET"
        if auto.startswith("SAME"):
            pads = _same(sizes, kernel, strides, dilations, upper=auto == "SAME_UPPER")
        elif auto == "VALID":
            pads = (0,) * (2 * axes)
        return cls(
            sizes=tuple(sizes),
            kernel=tuple(kernel),
            strides=strides,
            dilations=dilations,
            before=pads[:axes],
            after=pads[axes:],
            ceil_mode=bool(attributes.get("ceil_mode")) and not auto.startswith("SAME"),
        )

    @property
    def positions(self) -> tuple[int, ...]:
        """Number of positions of the window along each axis."""
        return tuple(self._positions(axis) for axis in range(len(self.sizes)))

    def _positions(self, axis: int) -> int:
        reach = (self.kernel[axis] - 1) * self.dilations[axis] + 1
        room = self.sizes[axis] + self.before[axis] + self.after[axis] - reach
        if not self.ceil_mode:
            return room // self.strides[axis] + 1
        count = -(-room // self.strides[axis]) + 1
        # A window that begins in the padding at the end is none.
        begins = (count - 1) * self.strides[axis]
        return count - (begins >= self.sizes[axis] + self.before[axis])

    def taps(self) -> Iterator[tuple[Index, Index, Index]]:
        """Yield for each element of the window three indices, each into the last axes of an array.

        The first selects the element itself in the filter. The second selects the results to which
        it contributes. The third selects the elements of the tensor that lie under it for these
        results.
        """
        along = [list(self._along(axis)) for axis in range(len(self.sizes))]
        for tap in itertools.product(*along):
            index, places, under = zip(*tap, strict=True)
            yield (..., *index), (..., *places), (..., *under)

    def _along(self, axis: int) -> Iterator[tuple[int, slice, slice]]:
        stride, size = self.strides[axis], self.sizes[axis]
        last = self.positions[axis] - 1
        # Elements that lie on the tensor nowhere are left out before they are looped over.
        reach = (size - 1 + self.before[axis]) // self.dilations[axis]
        for index in range(min(self.kernel[axis], reach + 1)):
            shift = index * self.dilations[axis] - self.before[axis]
            first = max(0, -(shift // stride))
            end = min(last, (size - 1 - shift) // stride)
            if first <= end:
                begin = first * stride + shift
                under = slice(begin, begin + (end - first) * stride + 1, stride)
                yield index, slice(first, end + 1), under

    def extents(self, *, with_padding: bool) -> list[np.ndarray]:
        """Return the number of elements of the window on the tensor, by axis and position.

        With `with_padding`, elements on the padding count too.
        """
        found = []
        for axis, count in enumerate(self.positions):
            before, after = (self.before[axis], self.after[axis]) if with_padding else (0, 0)
            starts = np.arange(count) * self.strides[axis] - self.before[axis]
            low = np.maximum(0, -((starts + before) // self.dilations[axis]))
            most = (self.sizes[axis] + after - 1 - starts) // self.dilations[axis]
            found.append(np.minimum(self.kernel[axis] - 1, most) - low + 1)
        return found


def _same(
    sizes: Sequence[int],
    kernel: Sequence[int],
    strides: Sequence[int],
    dilations: Sequence[int],
    *,
    upper: bool,
) -> tuple[int, ...]:
    """Return the padding of ``auto_pad`` SAME: the result has ⌈size / stride⌉ positions."""
    before, after = [], []
    for size, width, stride, dilation in zip(sizes, kernel, strides, dilations, strict=True):
        total = max(0, (-(-size // stride) - 1) * stride + (width - 1) * dilation + 1 - size)
        small, large = total // 2, total - total // 2
        before.append(small if upper else large)
        after.append(large if upper else small)
    return (*before, *after)
