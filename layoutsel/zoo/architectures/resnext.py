"""Residual networks of grouped convolutions: ResNeXt and RegNet, as in torchvision."""

from __future__ import annotations

from layoutsel.zoo.architectures.builder import NetworkBuilder, TensorRef
from layoutsel.zoo.architectures.layers import (
    IMAGE,
    SQUEEZED_GAIN,
    classify,
    conv_norm,
    pooled,
    relu,
    squeeze_excite,
)


def resnext50_32x4d(g: NetworkBuilder) -> None:
    """ResNeXt-50 with 32 groups (Xie et al., 2017)."""
    x = conv_norm(g, g.input("image", IMAGE), 64, 7, 2, act=relu)
    x = g.op("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
    for stage, count in enumerate((3, 4, 6, 3)):
        for index in range(count):
            width = 128 << stage
            x = _bottleneck(g, x, width, 2 * width, 2 if stage and not index else 1, groups=32)
    classify(g, pooled(g, x))


def regnet_y(g: NetworkBuilder) -> None:
    """RegNetY with 800 million multiply-adds (Radosavovic et al., 2020)."""
    x = conv_norm(g, g.input("image", IMAGE), 32, 3, 2, act=relu)
    for width, count in ((64, 1), (144, 3), (320, 8), (784, 2)):
        for index in range(count):
            stride, groups = 1 if index else 2, width // 16
            squeezed = round(x.channels / 4)
            x = _bottleneck(g, x, width, width, stride, groups, squeezed)
    classify(g, pooled(g, x))


def _bottleneck(
    g: NetworkBuilder,
    x: TensorRef,
    width: int,
    channels: int,
    stride: int,
    groups: int,
    squeezed: int = 0,
) -> TensorRef:
    """Bottleneck of 1x1, grouped 3x3 and 1x1 convolutions, with a residual.

    The residual is projected if its shape changes.
    """
    y = conv_norm(g, x, width, act=relu)
    y = conv_norm(g, y, width, 3, stride, groups, act=relu)
    if squeezed:
        y = squeeze_excite(g, y, squeezed)
    y = conv_norm(g, y, channels, gain=SQUEEZED_GAIN if squeezed else None)
    if stride > 1 or channels != x.channels:
        x = conv_norm(g, x, channels, 1, stride)
    return relu(g, g.op("Add", y, x))
