"""Import and normalise networks; their graphs of sub-graphs, with features and complexity."""

from __future__ import annotations

from layoutsel.model.lazily import lazily

# Arithmetic on dimensions that have names alone needs sympy, which takes 32 MB and half a second.
with lazily("sympy", "onnx_ir._symbolic_shapes"):
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
