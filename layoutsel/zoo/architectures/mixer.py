"""MLP-Mixer, as in timm."""

from __future__ import annotations

from layoutsel.zoo.architectures.builder import NetworkBuilder
from layoutsel.zoo.architectures.layers import IMAGE, classify, layer_norm, mlp, patches

_WIDTH, _LAYERS = 512, 8
"""Features of a token, and number of layers."""


def mixer_s16(g: NetworkBuilder) -> None:
    """MLP-Mixer S/16 (Tolstikhin et al., 2021)."""
    x, count = patches(g, g.input("image", IMAGE), _WIDTH)
    for _ in range(_LAYERS):
        y = g.op("Transpose", layer_norm(g, x), channels=count, perm=[0, 2, 1])
        y = g.op("Transpose", mlp(g, y, _WIDTH // 2), channels=_WIDTH, perm=[0, 2, 1])
        x = g.op("Add", x, y)
        x = g.op("Add", x, mlp(g, layer_norm(g, x), 4 * _WIDTH))
    classify(g, g.op("ReduceMean", layer_norm(g, x), axes=[1], keepdims=0))
