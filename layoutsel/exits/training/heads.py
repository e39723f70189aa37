"""Heads of exits: pooling and a linear layer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from torch import nn

GRID = 4
"""Most cells per axis that the pooling leaves."""
_LAYERS: dict[int, tuple[Any, Any]] = {
    1: (nn.Conv1d, nn.AvgPool1d),
    2: (nn.Conv2d, nn.AvgPool2d),
    3: (nn.Conv3d, nn.AvgPool3d),
}
"""Convolution and pooling by number of axes."""


def head(channels: int, axes: Sequence[int], classes: int, hidden: int | None = None) -> nn.Module:
    """Pool each axis to at most :data:`GRID` cells, then apply a linear layer.

    Parameters
    ----------
    channels
        Number of channels of the input (N, channels, *axes).
    axes
        One to three lengths.
    classes
        Number of classes.
    hidden
        Number of channels of a convolution before the pooling; no convolution if None.
    """
    convolution, pool = _LAYERS[len(axes)]
    begin: list[nn.Module] = []
    if hidden is not None:
        kernel = tuple(3 if size > 1 else 1 for size in axes)
        padding = tuple(width // 2 for width in kernel)
        begin = [convolution(channels, hidden, kernel, padding=padding), nn.ReLU()]
    # An adaptive pooling exports only where it divides the axis; a plain one always does.
    window = tuple(math.ceil(size / GRID) for size in axes)
    cells = math.prod(size // width for size, width in zip(axes, window, strict=True))
    features = (hidden or channels) * cells
    return nn.Sequential(*begin, pool(window), nn.Flatten(), nn.Linear(features, classes))
