"""Import and normalise networks; their graphs of sub-graphs, with features and complexity."""

from __future__ import annotations

from layoutsel.model.import_onnx import ImportedModel, TensorSpec, import_model

__all__ = ["ImportedModel", "TensorSpec", "import_model"]
