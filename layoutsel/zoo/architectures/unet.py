"""U-Net, a network for image segmentation."""

from __future__ import annotations

from layoutsel.zoo.architectures.builder import NetworkBuilder, TensorRef
from layoutsel.zoo.architectures.layers import conv, conv_norm, relu, sigmoid

_SIDE = 256
"""Side of the image, pixels."""
_WIDTHS = (32, 64, 128, 256, 512)
"""Channels of each level."""


def unet(g: NetworkBuilder) -> None:
    """U-Net with five levels and one class (Ronneberger et al., 2015; Buda et al., 2019)."""
    x = g.input("image", (1, 3, _SIDE, _SIDE))
    skips = []
    for width in _WIDTHS[:-1]:
        skips.append(_double_conv(g, x, width))
        x = g.op("MaxPool", skips[-1], kernel_shape=[2, 2], strides=[2, 2])
    x = _double_conv(g, x, _WIDTHS[-1])
    for skip in reversed(skips):
        x = _double_conv(g, _joined(g, x, skip), skip.channels)
    g.output(sigmoid(g, conv(g, x, 1, gain=1)), (1, 1, _SIDE, _SIDE))


def _double_conv(g: NetworkBuilder, x: TensorRef, channels: int) -> TensorRef:
    return conv_norm(g, conv_norm(g, x, channels, 3, act=relu), channels, 3, act=relu)


def _joined(g: NetworkBuilder, x: TensorRef, skip: TensorRef) -> TensorRef:
    """Up-sample `x` to twice its side and concatenate it with `skip`."""
    width = skip.channels
    up = g.op(
        "ConvTranspose", x, (x.channels, width, 2, 2), (width,), channels=width, gain=1,
        kernel_shape=[2, 2], strides=[2, 2],
    )  # fmt: skip
    return g.op("Concat", up, skip, channels=2 * width, axis=1)
