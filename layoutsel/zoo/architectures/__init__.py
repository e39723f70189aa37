"""Published networks at full size, written node by node, with seeded random weights: no download, no PyTorch."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from onnx import ModelProto

from layoutsel.errors import InvalidModel
from layoutsel.zoo.architectures.builder import NetworkBuilder
from layoutsel.zoo.architectures.convnext import convnext_tiny
from layoutsel.zoo.architectures.inverted_residual import (
    efficientnet_b0,
    mobilenet_v2,
    mobilenet_v3_large,
)
from layoutsel.zoo.architectures.mixer import mixer_s16
from layoutsel.zoo.architectures.resnext import regnet_y, resnext50_32x4d
from layoutsel.zoo.architectures.transformer import bert_base_6l, vit_small_16
from layoutsel.zoo.architectures.unet import unet
from layoutsel.zoo.architectures.yolo import yolo_tiny

PREFIX = "arch:"
"""What the name of such a model starts with, such as ``arch:mobilenet_v2``."""

ARCHITECTURES: Mapping[str, Callable[[NetworkBuilder], None]] = {
    "bert_base_6l": bert_base_6l,
    "convnext_tiny": convnext_tiny,
    "efficientnet_b0": efficientnet_b0,
    "mixer_s16": mixer_s16,
    "mobilenet_v2": mobilenet_v2,
    "mobilenet_v3_large": mobilenet_v3_large,
    "regnet_y": regnet_y,
    "resnext50_32x4d": resnext50_32x4d,
    "unet": unet,
    "vit_small_16": vit_small_16,
    "yolo_tiny": yolo_tiny,
}
"""What writes the network of a name."""


def architecture(name: str, seed: int = 0) -> ModelProto:
    """Build a network of batch 1.

    Parameters
    ----------
    name
        One of :data:`ARCHITECTURES`.
    seed
        Of the weights; equal seeds give equal models.

    Raises
    ------
    InvalidModel
        If there is no such network.
    """
    if name not in ARCHITECTURES:
        raise InvalidModel(f"no model {PREFIX}{name}: choose one of {', '.join(ARCHITECTURES)}")
    graph = NetworkBuilder(name, seed)
    ARCHITECTURES[name](graph)
    return graph.model()
