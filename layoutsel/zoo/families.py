"""Families of the zoos' networks, for evaluations that leave out one family at a time."""

from __future__ import annotations

from collections.abc import Mapping

from layoutsel.zoo.recorded import recorded_networks

_FAMILIES: Mapping[str, str] = {
    "bert_base_6l": "bert",
    "bvlc_alexnet": "alexnet",
    "convnext_tiny": "convnext",
    "densenet121": "densenet",
    "efficientnet_b0": "efficientnet",
    "inception_v1": "inception",
    "inception_v2": "inception",
    "mixer_s16": "mlp",
    "mobilenet_v2": "mobilenet",
    "mobilenet_v3_large": "mobilenet",
    "regnet_y": "regnet",
    "resnet50": "resnet",
    "resnext50_32x4d": "resnet",
    "shufflenet": "shufflenet",
    "squeezenet": "squeezenet",
    "unet": "unet",
    "vgg19": "vgg",
    "vit_small_16": "vit",
    "yolo_tiny": "yolo",
    "zfnet512": "alexnet",
}
"""Family of each light model and each architecture."""


def families_of(model: str) -> tuple[str, ...]:
    """Return the families of a network: its own first, then those of its backbone.

    Parameters
    ----------
    model
        Name with or without prefix and size, such as ``zoo:resnet34@160`` or ``resnet50``. A
        network outside the zoos is a family of its own.
    """
    name = model.rpartition(":")[2].partition("@")[0]
    recorded = recorded_networks().get(name)
    return recorded.families if recorded else (_FAMILIES.get(name, name),)
