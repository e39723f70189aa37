"""Published networks at full size with seeded random weights, without downloads or PyTorch."""

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
"""Start of the names of these models, such as ``arch:mobilenet_v2``."""

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
"""Function that builds each network, by name."""


def architecture(name: str, seed: int = 0) -> ModelProto:
    """Build a network of batch 1.

    Parameters
    ----------
    name
        A key of :data:`ARCHITECTURES`.
    seed
        Seed of the weights; equal seeds give equal models.

    Raises
    ------
    InvalidModel
        If there is no network of that name.
    """
    if name not in ARCHITECTURES:
        raise InvalidModel(f"no model {PREFIX}{name}: choose one of {', '.join(ARCHITECTURES)}")
    graph = NetworkBuilder(name, seed)
    ARCHITECTURES[name](graph)
    return graph.model()
