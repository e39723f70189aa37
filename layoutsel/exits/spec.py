"""Specification of a network's exits, as a file or in the metadata of an ONNX model."""

from __future__ import annotations

from dataclasses import dataclass, field

from layoutsel import documents
from layoutsel.exits.policy import Policy

FORMAT = "layoutsel.exits/1"
"""Format of specifications."""


@dataclass(frozen=True, kw_only=True)
class Exit:
    """One exit of a network."""

    name: str
    """Name, unique in the network: letters, digits and ``_``."""
    output: str
    """Name of the model's output with the logits or probabilities of the classes, (1, classes)."""


@dataclass(frozen=True, kw_only=True)
class ExitSpec:
    """Exits of a network in the order of their depth; the last one is final."""

    format: str
    """:data:`FORMAT`."""
    model_hash: str
    """Hash of the model; empty if the specification holds for any model with these outputs."""
    exits: tuple[Exit, ...]
    """Exits, the final one last."""
    policy: Policy | None = field(default=None, metadata=documents.OPTIONAL)
    """Policy that the exits were calibrated for."""
