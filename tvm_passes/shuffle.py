"""Recognition of channel shuffles, which models spell out as reshape, permute_dims, reshape.

A shuffle of G groups moves channel k of group g, with K channels each, to position k·G + g.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from tvm.ir import Call

from tvm_passes.ir import op_name, static_shape

OPERATORS = ("reshape", "permute_dims", "reshape")
"""Operators of a shuffle, in order."""


def shuffle_groups(calls: Sequence[Call]) -> int | None:
    """Return the groups of a shuffle that three consecutive calls form; None if they form none."""
    if tuple(op_name(call) for call in calls) != OPERATORS:
        return None
    source, cut, _, result = (static_shape(e.ty) for e in (calls[0].args[0], *calls))
    if len(source) != 4 or result != source or len(cut) != 5:
        return None
    (n, channels, h, w), groups = source, cut[1]
    is_cut = cut == (n, groups, channels // groups, h, w)
    axes = [int(axis) for axis in calls[1].attrs.axes or ()]
    return groups if is_cut and axes == [0, 2, 1, 3, 4] else None


def shuffled_order(channels: int, groups: int) -> np.ndarray:
    """Return the channel at each position after a shuffle."""
    return np.arange(channels).reshape(groups, -1).T.reshape(-1)
