"""Import and normalisation of networks; their graphs of sub-graphs."""

from __future__ import annotations

from layoutsel.model.lazily import lazily

# Only arithmetic on named dimensions needs sympy, which takes 32 MB and half a second to load.
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
