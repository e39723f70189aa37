"""Padding goes into the operator behind it, where that can pad."""

from __future__ import annotations

import pytest
from normalizing import check, constant, conv, unchanged
from tvm.relax.op import (
    nn,
)

from tvm_passes.normalize import (
    FoldPadding,
)

SPATIAL = [0, 0, 0, 0, 1, 2, 0, 1]


def test_padding_goes_into_the_convolution():
    check(FoldPadding(), lambda e, x: conv(e(nn.pad(x, SPATIAL))), "nn.conv2d")


def test_padding_goes_into_average_pooling():
    check(
        FoldPadding(),
        lambda e, x: nn.avg_pool2d(e(nn.pad(x, SPATIAL)), (3, 3), (2, 2)),
        "nn.avg_pool2d",
    )


@pytest.mark.parametrize(
    "emit",
    [
        lambda e, x: nn.max_pool2d(e(nn.pad(x, SPATIAL)), (3, 3)),
        lambda e, x: nn.avg_pool2d(e(nn.pad(x, SPATIAL)), (3, 3), padding=(1, 1)),
        lambda e, x: nn.conv2d(e(nn.pad(x, SPATIAL, "constant", 1.0)), constant(8, 8, 3, 3)),
        lambda e, x: nn.conv2d(e(nn.pad(x, SPATIAL, "reflect")), constant(8, 8, 3, 3)),
        lambda e, x: nn.conv2d(e(nn.pad(x, [0, 0, 0, 1, 0, 0, 0, 0])), constant(8, 9, 3, 3)),
    ],
)
def test_other_padding_stays(emit):
    unchanged(FoldPadding(), emit)
