"""Separate memory for results: none shares memory with an input, a weight or another result."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence

import tvm_ffi

from layoutsel.device.tensors import copied
from tvm_passes.devices import HOST_DEVICE

_Region = tuple[int, int]
"""First address, and the address after the last."""


class Ownership:
    """Detection and copying of results that share memory.

    The virtual machine may return an input, a reshaped input or a weight itself, or one tensor
    twice. Addresses reveal such results, and only those are copied.

    Parameters
    ----------
    weights
        Weights and constants of the model in host memory.
    """

    def __init__(self, weights: Iterable[tvm_ffi.Tensor]) -> None:
        regions = _merged(sorted(map(_region, weights)))
        self._starts = [start for start, _ in regions]
        self._ends = [end for _, end in regions]

    def own(
        self, inputs: Sequence[tvm_ffi.Tensor], results: Sequence[tvm_ffi.Tensor]
    ) -> list[tvm_ffi.Tensor]:
        """Copy results in host memory that overlap inputs, weights or earlier results."""
        taken = [_region(tensor) for tensor in inputs]
        owned = []
        for result in results:
            region = _region(result)
            if self._in_weights(region) or any(_overlap(region, other) for other in taken):
                result = copied(result, HOST_DEVICE)  # noqa: PLW2901 - the copy takes its place
                region = _region(result)
            taken.append(region)
            owned.append(result)
        return owned

    def _in_weights(self, region: _Region) -> bool:
        start, end = region
        # Merged regions ascend: the last one that starts before the result's end reaches furthest.
        place = bisect_right(self._starts, end - 1) - 1
        return start < end and place >= 0 and self._ends[place] > start


def _region(tensor: tvm_ffi.Tensor) -> _Region:
    start = tensor.data_ptr()
    return start, start + tensor.numel() * tensor.dtype.itemsize


def _overlap(one: _Region, other: _Region) -> bool:
    return max(one[0], other[0]) < min(one[1], other[1])


def _merged(regions: Iterable[_Region]) -> list[_Region]:
    """Ascending disjoint regions: empty ones dropped, overlapping ones joined."""
    merged: list[_Region] = []
    for start, end in regions:
        if merged and start < merged[-1][1]:
            merged[-1] = merged[-1][0], max(merged[-1][1], end)
        elif start < end:
            merged.append((start, end))
    return merged
