"""Layers of several architectures, in the operators that PyTorch's exporter writes."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeAlias

from layoutsel.zoo.architectures.builder import NetworkBuilder, TensorRef, ints
from layoutsel.zoo.random_weights import HE_GAIN

Layer: TypeAlias = Callable[[NetworkBuilder, TensorRef], TensorRef]
"""Function that adds a layer to a network and returns the result."""

IMAGE = (1, 3, 224, 224)
"""Shape of the input images, NCHW."""
CLASSES = 1000
"""Number of classes."""
_PATCH = 16
"""Side of a patch, pixels."""


def relu(g: NetworkBuilder, x: TensorRef) -> TensorRef:
    """``max(x, 0)``."""
    return g.op("Relu", x)


def relu6(g: NetworkBuilder, x: TensorRef) -> TensorRef:
    """``min(max(x, 0), 6)``."""
    return g.op("Clip", x, 0.0, 6.0)


def sigmoid(g: NetworkBuilder, x: TensorRef) -> TensorRef:
    """``1 / (1 + exp(-x))``."""
    return g.op("Sigmoid", x)


def hard_sigmoid(g: NetworkBuilder, x: TensorRef) -> TensorRef:
    """``max(0, min(1, x / 6 + 1/2))``."""
    return g.op("HardSigmoid", x, alpha=1 / 6, beta=0.5)


def silu(g: NetworkBuilder, x: TensorRef) -> TensorRef:
    """``x · sigmoid(x)``."""
    return g.op("Mul", x, g.op("Sigmoid", x))


def hard_swish(g: NetworkBuilder, x: TensorRef) -> TensorRef:
    """``x · hard_sigmoid(x)``."""
    return g.op("HardSwish", x)


def gelu(g: NetworkBuilder, x: TensorRef) -> TensorRef:
    """``x · (1 + erf(x / √2)) / 2``."""
    shifted = g.op("Add", g.op("Erf", g.op("Div", x, math.sqrt(2))), 1.0)
    return g.op("Mul", g.op("Mul", x, shifted), 0.5)


_LINEAR_GAIN = 0.5
"""Gain of a convolution at the end of a residual branch, which has no activation.

It keeps the branch smaller than the tensor that the branch is added to.
"""
SQUEEZED_GAIN = 4.0
"""Gain of a convolution at the end of a residual branch, directly after a squeeze-and-excitation.

Its gates of about one half leave a quarter of the power, which this gain restores.
"""


def conv(
    g: NetworkBuilder,
    x: TensorRef,
    channels: int,
    size: int = 1,
    stride: int = 1,
    groups: int = 1,
    *,
    bias: bool = True,
    gain: float = HE_GAIN,
) -> TensorRef:
    """Convolution that divides the image side by `stride`; overlapping windows are padded."""
    weight = (channels, x.channels // groups, size, size)
    pad = 0 if size == stride else (size - 1) // 2
    return g.op(
        "Conv", x, weight, *([(channels,)] if bias else []), channels=channels, gain=gain,
        kernel_shape=[size] * 2, strides=[stride] * 2, pads=[pad] * 4, group=groups,
    )  # fmt: skip


def conv_norm(
    g: NetworkBuilder,
    x: TensorRef,
    channels: int,
    size: int = 1,
    stride: int = 1,
    groups: int = 1,
    *,
    act: Layer | None = None,
    gain: float | None = None,
) -> TensorRef:
    """Convolution, batch normalisation and activation."""
    gain = gain or (HE_GAIN if act else _LINEAR_GAIN)
    y = conv(g, x, channels, size, stride, groups, bias=False, gain=gain)
    y = g.op("BatchNormalization", y, *[(channels,)] * 4, epsilon=1e-5)
    return act(g, y) if act else y


def squeeze_excite(
    g: NetworkBuilder, x: TensorRef, width: int, act: Layer = relu, gate: Layer = sigmoid
) -> TensorRef:
    """Scaling of channels by a gate of their means (Hu et al., 2018)."""
    squeezed = act(g, conv(g, g.op("GlobalAveragePool", x), width))
    return g.op("Mul", x, gate(g, conv(g, squeezed, x.channels)))


def layer_norm(g: NetworkBuilder, x: TensorRef) -> TensorRef:
    """Normalisation over the last axis."""
    return g.op("LayerNormalization", x, *[(x.channels,)] * 2, axis=-1, epsilon=1e-6)


def linear(g: NetworkBuilder, x: TensorRef, channels: int, gain: float = 1.0) -> TensorRef:
    """Linear layer over the last axis of a tensor of three or more axes."""
    y = g.op("MatMul", x, (x.channels, channels), channels=channels, gain=gain)
    return g.op("Add", y, (channels,))


def mlp(g: NetworkBuilder, x: TensorRef, hidden: int) -> TensorRef:
    """Two linear layers with GELU between them."""
    return linear(g, gelu(g, linear(g, x, hidden)), x.channels)


def patches(g: NetworkBuilder, image: TensorRef, width: int) -> tuple[TensorRef, int]:
    """Embed patches of 16x16 pixels; returns a tensor (1, count, `width`) and the count."""
    count = (IMAGE[2] // _PATCH) * (IMAGE[3] // _PATCH)
    y = conv(g, image, width, _PATCH, _PATCH, gain=1)
    return g.op("Transpose", g.op("Reshape", y, ints(1, width, count)), perm=[0, 2, 1]), count


def fully_connected(g: NetworkBuilder, x: TensorRef, channels: int, gain: float = 1.0) -> TensorRef:
    """Linear layer over a row of features."""
    weight = (channels, x.channels)
    return g.op("Gemm", x, weight, (channels,), channels=channels, gain=gain, transB=1)


def classify(g: NetworkBuilder, features: TensorRef) -> None:
    """Add the output: scores of the classes, from a row of features."""
    g.output(fully_connected(g, features, CLASSES), (1, CLASSES))


def pooled(g: NetworkBuilder, x: TensorRef) -> TensorRef:
    """Average of each channel, as a row of features."""
    return g.op("Flatten", g.op("GlobalAveragePool", x), axis=1)
