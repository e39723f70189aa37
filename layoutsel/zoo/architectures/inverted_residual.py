"""Networks of inverted residual blocks: MobileNets and EfficientNet, as in torchvision."""

from __future__ import annotations

from dataclasses import dataclass

from layoutsel.zoo.architectures.builder import NetworkBuilder, TensorRef
from layoutsel.zoo.architectures.layers import (
    IMAGE,
    SQUEEZED_GAIN,
    Layer,
    classify,
    conv_norm,
    fully_connected,
    hard_sigmoid,
    hard_swish,
    pooled,
    relu,
    relu6,
    sigmoid,
    silu,
    squeeze_excite,
)

# Expansion, channels, blocks, stride of the first block (Sandler et al., 2018, table 2).
_MOBILENET_V2 = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
# Kernel, expanded channels, channels, squeezed channels, activation, stride
# (Howard et al., 2019, table 1).
_MOBILENET_V3_LARGE = (
    (3, 16, 16, 0, relu, 1),
    (3, 64, 24, 0, relu, 2),
    (3, 72, 24, 0, relu, 1),
    (5, 72, 40, 24, relu, 2),
    (5, 120, 40, 32, relu, 1),
    (5, 120, 40, 32, relu, 1),
    (3, 240, 80, 0, hard_swish, 2),
    (3, 200, 80, 0, hard_swish, 1),
    (3, 184, 80, 0, hard_swish, 1),
    (3, 184, 80, 0, hard_swish, 1),
    (3, 480, 112, 120, hard_swish, 1),
    (3, 672, 112, 168, hard_swish, 1),
    (5, 672, 160, 168, hard_swish, 2),
    (5, 960, 160, 240, hard_swish, 1),
    (5, 960, 160, 240, hard_swish, 1),
)
# Expansion, kernel, channels, blocks, stride of the first block (Tan and Le, 2019, table 1).
_EFFICIENTNET_B0 = (
    (1, 3, 16, 1, 1),
    (6, 3, 24, 2, 2),
    (6, 5, 40, 2, 2),
    (6, 3, 80, 3, 2),
    (6, 5, 112, 3, 1),
    (6, 5, 192, 4, 2),
    (6, 3, 320, 1, 1),
)


@dataclass(frozen=True, kw_only=True)
class _Block:
    """Block of a widening 1x1, a depthwise and a narrowing 1x1 convolution."""

    expanded: int
    """Channels of the depthwise convolution."""
    channels: int
    """Channels of the result."""
    act: Layer
    """Activation after the first two convolutions."""
    kernel: int = 3
    """Size of the depthwise kernel."""
    stride: int = 1
    """Stride of the depthwise convolution."""
    squeezed: int = 0
    """Channels inside the squeeze-and-excitation; 0 for a block without one."""
    squeeze_act: Layer = relu
    """Activation inside the squeeze-and-excitation."""
    gate: Layer = sigmoid
    """Gate of the squeeze-and-excitation."""

    def add(self, g: NetworkBuilder, x: TensorRef) -> TensorRef:
        """Add the block to a network; equal shapes get a residual connection."""
        y, width = x, self.expanded
        if width != x.channels:
            y = conv_norm(g, y, width, act=self.act)
        y = conv_norm(g, y, width, self.kernel, self.stride, width, act=self.act)
        if self.squeezed:
            y = squeeze_excite(g, y, self.squeezed, self.squeeze_act, self.gate)
        y = conv_norm(g, y, self.channels, gain=SQUEEZED_GAIN if self.squeezed else None)
        same = self.stride == 1 and self.channels == x.channels
        return g.op("Add", x, y) if same else y


def mobilenet_v2(g: NetworkBuilder) -> None:
    """MobileNet v2, width 1.0 (Sandler et al., 2018)."""
    x = conv_norm(g, g.input("image", IMAGE), 32, 3, 2, act=relu6)
    for expansion, channels, count, stride in _MOBILENET_V2:
        for index in range(count):
            first = stride if index == 0 else 1
            width = expansion * x.channels
            x = _Block(expanded=width, channels=channels, act=relu6, stride=first).add(g, x)
    classify(g, pooled(g, conv_norm(g, x, 1280, act=relu6)))


def mobilenet_v3_large(g: NetworkBuilder) -> None:
    """MobileNet v3 large, width 1.0 (Howard et al., 2019)."""
    x = conv_norm(g, g.input("image", IMAGE), 16, 3, 2, act=hard_swish)
    for kernel, expanded, channels, squeezed, act, stride in _MOBILENET_V3_LARGE:
        block = _Block(
            expanded=expanded, channels=channels, act=act, kernel=kernel, stride=stride,
            squeezed=squeezed, gate=hard_sigmoid,
        )  # fmt: skip
        x = block.add(g, x)
    features = pooled(g, conv_norm(g, x, 960, act=hard_swish))
    classify(g, hard_swish(g, fully_connected(g, features, 1280)))


def efficientnet_b0(g: NetworkBuilder) -> None:
    """EfficientNet B0 (Tan and Le, 2019)."""
    x = conv_norm(g, g.input("image", IMAGE), 32, 3, 2, act=silu)
    for expansion, kernel, channels, count, stride in _EFFICIENTNET_B0:
        for index in range(count):
            block = _Block(
                expanded=expansion * x.channels, channels=channels, act=silu, kernel=kernel,
                stride=stride if index == 0 else 1, squeezed=x.channels // 4, squeeze_act=silu,
            )  # fmt: skip
            x = block.add(g, x)
    classify(g, pooled(g, conv_norm(g, x, 1280, act=silu)))
