"""Recognise channel shuffles, which models spell out as reshape, permute_dims, reshape.

A shuffle of G groups moves channel k of group g, of K channels each, to place k·G + g.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

OPERATORS = ("reshape", "permute_dims", "reshape")

Shape = tuple[int, ...]


def shuffle_groups(
    shape: Shape, operators: Sequence[str], shapes: Sequence[Shape], axes: Sequence[int]
) -> int | None:
    """Groups of the shuffle that three operators are; None if they are anything else.

    Parameters
    ----------
    shape
        Of what the first one reads.
    operators, shapes
        Names of the operators, and shapes of their results.
    axes
        Of the permutation.
    """
    if tuple(operators) != OPERATORS or len(shape) != 4 or shapes[2] != shape:
        return None
    n, c, h, w = shape
    groups = shapes[0][1]
    cut = (n, groups, c // groups, h, w)
    return groups if shapes[0] == cut and [*axes] == [0, 2, 1, 3, 4] else None


def shuffled_order(channels: int, groups: int) -> np.ndarray:
    """Which channel each place has after a shuffle."""
    return np.arange(channels).reshape(groups, -1).T.reshape(-1)
