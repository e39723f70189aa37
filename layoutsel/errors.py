"""Every error that layoutsel raises for a user to read; the command line prints it without a trace."""

from __future__ import annotations

from tvm_passes.errors import (
    BuildError,
    Decline,
    Declined,
    IllegalDecision,
    LayoutselError,
    UnitUnavailable,
    UnsupportedModel,
)

__all__ = [
    "BuildError",
    "Decline",
    "Declined",
    "IllegalDecision",
    "InvalidModel",
    "InvalidShape",
    "LayoutselError",
    "UnitUnavailable",
    "UnsupportedModel",
]


class InvalidModel(LayoutselError):
    """A model file that cannot be read: missing, truncated, corrupt, or not ONNX."""


class InvalidShape(LayoutselError):
    """An input shape that is missing, or that does not fit the model."""
