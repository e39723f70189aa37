"""Networks of torchvision (BSD-3-Clause) and of segmentation_models_pytorch (MIT)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from recipes import Recipe, images

_USUAL = (224, 160)
"""Sizes of classifiers."""
_SEGMENTED = (256, 512)
"""Sizes of networks with a result per pixel."""


def _classifier(source: str, size: int) -> tuple[Any, Mapping[str, Any]]:
    import torchvision

    options = {"init_weights": False, "aux_logits": False} if source == "googlenet" else {}
    return torchvision.models.get_model(source, weights=None, **options).eval(), images(size)


def _segmenter(source: str, size: int) -> tuple[Any, Mapping[str, Any]]:
    import torchvision

    model = torchvision.models.get_model(source, weights=None, weights_backbone=None)
    return model.eval(), images(size)


def _detector(source: str, size: int) -> tuple[Any, Mapping[str, Any]]:
    """Backbone and heads; choosing boxes depends on the data, and is left to the caller."""
    import torch
    import torchvision

    whole = torchvision.models.get_model(source, weights=None, weights_backbone=None).eval()

    class Heads(torch.nn.Module):
        """Maps of classes and boxes."""

        def __init__(self) -> None:
            super().__init__()
            self.backbone, self.head = whole.backbone, whole.head

        def forward(self, image: Any) -> Any:
            """Return one tensor per head."""
            return tuple(self.head(list(self.backbone(image).values())).values())

    return Heads().eval(), images(size)


def _video(source: str, size: int) -> tuple[Any, Mapping[str, Any]]:
    import torch
    import torchvision

    model = torchvision.models.get_model(source, weights=None)
    return model.eval(), {"video": torch.randn(1, 3, 8, size, size)}


def _smp(source: str, encoder: str, size: int) -> tuple[Any, Mapping[str, Any]]:
    import segmentation_models_pytorch

    model = getattr(segmentation_models_pytorch, source)(encoder, encoder_weights=None)
    return model.eval(), images(size)


_Build = Callable[[str, int], tuple[Any, Mapping[str, Any]]]
"""Function of name and size that builds a network."""

_TORCHVISION: Mapping[str, tuple[tuple[str, ...], str, tuple[int, ...], _Build]] = {
    "alexnet_torchvision": (("alexnet",), "alexnet", _USUAL, _classifier),
    "deeplabv3_mobilenet": (("deeplab", "mobilenet"), "deeplabv3_mobilenet_v3_large", _SEGMENTED, _segmenter),
    "fcos_resnet50": (("fcos", "resnet"), "fcos_resnet50_fpn", (320,), _detector),
    "googlenet": (("inception",), "googlenet", _USUAL, _classifier),
    "lraspp_mobilenet": (("lraspp", "mobilenet"), "lraspp_mobilenet_v3_large", _SEGMENTED, _segmenter),
    "r2plus1d_18": (("resnet3d",), "r2plus1d_18", (112,), _video),
    "r3d_18": (("resnet3d",), "r3d_18", (112, 64), _video),
    "retinanet_resnet50": (("retinanet", "resnet"), "retinanet_resnet50_fpn_v2", (320,), _detector),
    "shufflenet_v2_x1_0": (("shufflenet",), "shufflenet_v2_x1_0", _USUAL, _classifier),
    "squeezenet1_1": (("squeezenet",), "squeezenet1_1", _USUAL, _classifier),
    "ssdlite_mobilenet": (("ssd", "mobilenet"), "ssdlite320_mobilenet_v3_large", (320, 192), _detector),
}  # fmt: skip
"""Families, name, sizes in pixels, and builder."""

_SMP: Mapping[str, tuple[tuple[str, ...], str, str]] = {
    "deeplabv3plus_effnet": (("deeplab", "efficientnet"), "DeepLabV3Plus", "efficientnet-b0"),
    "fpn_resnet34": (("fpn", "resnet"), "FPN", "resnet34"),
    "linknet_mobilenet": (("linknet", "mobilenet"), "Linknet", "timm-mobilenetv3_small_100"),
    "manet_resnet34": (("manet", "resnet"), "MAnet", "resnet34"),
    "pan_resnet34": (("pan", "resnet"), "PAN", "resnet34"),
    "pspnet_resnet34": (("pspnet", "resnet"), "PSPNet", "resnet34"),
    "unet_resnet34": (("unet", "resnet"), "Unet", "resnet34"),
    "unetplusplus_effnet": (("unet", "efficientnet"), "UnetPlusPlus", "efficientnet-b0"),
}
"""Families, class and encoder."""

NETWORKS: Mapping[str, Recipe] = {
    name: Recipe(
        families=families,
        package="torchvision",
        source=source,
        size_of="pixels",
        sizes=sizes,
        build=partial(build, source),
    )
    for name, (families, source, sizes, build) in _TORCHVISION.items()
} | {
    name: Recipe(
        families=families,
        package="segmentation-models-pytorch",
        source=f"{source}({encoder!r})",
        size_of="pixels",
        sizes=_SEGMENTED,
        build=partial(_smp, source, encoder),
    )
    for name, (families, source, encoder) in _SMP.items()
}
"""Recipes by name."""
