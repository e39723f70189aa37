"""ConvNeXt, as in torchvision."""

from __future__ import annotations

from layoutsel.zoo.architectures.builder import NetworkBuilder, TensorRef
from layoutsel.zoo.architectures.layers import IMAGE, classify, conv, layer_norm, mlp

_STAGES = ((96, 3), (192, 3), (384, 9), (768, 3))
"""Channels and number of blocks of each stage."""


def convnext_tiny(g: NetworkBuilder) -> None:
    """ConvNeXt-T (Liu et al., 2022)."""
    x = g.input("image", IMAGE)
    for channels, count in _STAGES:
        if channels == _STAGES[0][0]:
            x = _norm(g, conv(g, x, channels, 4, 4, gain=1))
        else:
            x = conv(g, _norm(g, x), channels, 2, 2, gain=1)
        for _ in range(count):
            x = _block(g, x)
    x = _norm(g, g.op("GlobalAveragePool", x))
    classify(g, g.op("Flatten", x, axis=1))


def _block(g: NetworkBuilder, x: TensorRef) -> TensorRef:
    """Depthwise convolution, then an MLP over the channels of each pixel, with a residual."""
    y = conv(g, x, x.channels, 7, groups=x.channels, gain=1)
    y = layer_norm(g, g.op("Transpose", y, perm=[0, 2, 3, 1]))
    y = g.op("Transpose", mlp(g, y, 4 * x.channels), perm=[0, 3, 1, 2])
    return g.op("Add", g.op("Mul", y, (x.channels, 1, 1)), x)


def _norm(g: NetworkBuilder, x: TensorRef) -> TensorRef:
    """Layer normalisation over the channels of an image."""
    y = layer_norm(g, g.op("Transpose", x, perm=[0, 2, 3, 1]))
    return g.op("Transpose", y, perm=[0, 3, 1, 2])
