"""Small networks as PyTorch's two exporters write them, kept as files so that the tests need no PyTorch.

``python tests/exported.py`` writes them again, with PyTorch 2.13, from the builders in ``models.py``.
"""

from __future__ import annotations

from pathlib import Path

import onnx

FOLDER = Path(__file__).parent / "data" / "exported"
EXPORTERS = ("legacy", "dynamo")
NAMES = (
    "bert",
    "convnext",
    "densenet",
    "efficientnet",
    "mobilenet_v3",
    "resnet",
    "shufflenet_v2",
    "unet",
    "vit",
)
DYNAMIC = {
    "resnet_dynamic": {"dynamic_axes": {"x": {0: "n"}}, "input_names": ["x"]},
    "resnet_dynamic_seed1": {"dynamic_axes": {"x": {0: "n"}}, "input_names": ["x"], "seed": 1},
    "resnet_dynamic_unfolded": {
        "dynamic_axes": {"x": {0: "n"}},
        "input_names": ["x"],
        "do_constant_folding": False,
        "opset_version": 11,
    },
}
"""The legacy exporter's options for the variants of resnet with a dynamic batch."""


def exported_path(name: str, exporter: str) -> Path:
    """File of a network of :data:`NAMES` as one of :data:`EXPORTERS` wrote it."""
    return FOLDER / f"{name}_{exporter}.onnx"


def exported(name: str, exporter: str) -> onnx.ModelProto:
    """A network of :data:`NAMES` as one of :data:`EXPORTERS` wrote it."""
    return onnx.load(exported_path(name, exporter))


def dynamic(name: str) -> onnx.ModelProto:
    """One of :data:`DYNAMIC`."""
    return onnx.load(FOLDER / f"{name}.onnx")


def main() -> None:
    """Export every network again."""
    from models import MODELS, onnx_model

    for name in MODELS:
        for exporter in EXPORTERS:
            model = onnx_model(name, dynamo=exporter == "dynamo")
            onnx.save(model, exported_path(name, exporter))
    for name, options in DYNAMIC.items():
        onnx.save(onnx_model("resnet", **options), FOLDER / f"{name}.onnx")


if __name__ == "__main__":
    main()
