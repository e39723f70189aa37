"""Results that are the caller's own: none shares memory with an input, a weight or another result."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence

import tvm_ffi

from layoutsel.device.tensors import copied
from tvm_passes.devices import HOST_DEVICE

_Region = tuple[int, int]
"""First address, and the one after the last."""


class Ownership:
    """Gives results memory of their own.

    The virtual machine returns an input, a reshaped input or a weight as it is, and one tensor twice where a model lists
    it twice. Such results are found by their addresses, and copied. Nothing else is.

    Parameters
    ----------
    weights
        The model's weights, constants among them, that lie in the host's memory.
    """

    def __init__(self, weights: Iterable[tvm_ffi.Tensor]) -> None:
        regions = _merged(sorted(map(_region, weights)))
        self._starts = [start for start, _ in regions]
        self._ends = [end for _, end in regions]

    def own(
        self, inputs: Sequence[tvm_ffi.Tensor], results: Sequence[tvm_ffi.Tensor]
    ) -> list[tvm_ffi.Tensor]:
        """Copy the `results`, in the host's memory, that lie in an input, a weight or an earlier result."""
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
        # The last weight that begins before the result ends reaches furthest: merged regions are ascending.
        place = bisect_right(self._starts, end - 1) - 1
        return start < end and place >= 0 and self._ends[place] > start


def _region(tensor: tvm_ffi.Tensor) -> _Region:
    start = tensor.data_ptr()
    return start, start + tensor.numel() * tensor.dtype.itemsize


def _overlap(one: _Region, other: _Region) -> bool:
    return max(one[0], other[0]) < min(one[1], other[1])


def _merged(regions: Iterable[_Region]) -> list[_Region]:
    """Ascending regions without empty ones, those that overlap made one."""
    merged: list[_Region] = []
    for start, end in regions:
        if merged and start < merged[-1][1]:
            merged[-1] = merged[-1][0], max(merged[-1][1], end)
        elif start < end:
            merged.append((start, end))
    return merged
