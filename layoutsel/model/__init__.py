"""Import and normalise networks; their graphs of sub-graphs, with features and complexity."""

from __future__ import annotations

from layoutsel.model.import_onnx import (
    ImportedModel,
    LoadedModel,
    Source,
    TensorSpec,
    import_loaded,
    import_model,
    load,
)

__all__ = [
    "ImportedModel",
    "LoadedModel",
    "Source",
    "TensorSpec",
    "import_loaded",
    "import_model",
    "load",
]
