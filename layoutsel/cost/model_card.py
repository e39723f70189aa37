"""The description that travels with a trained cost model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from layoutsel import documents


@dataclass(frozen=True, kw_only=True)
class PartCard:
    """Training data and errors of one part of a model: a unit's, or the boundaries'."""

    samples: int
    workloads: int
    machines: tuple[str, ...]
    """Names of their profiles, or of the devices."""
    operators: tuple[str, ...]
    """Anchor operators; kinds of boundaries."""
    forms: tuple[str, ...]
    """Precisions; layouts and units of boundaries."""
    within_10: float
    """Share of samples predicted within 10 %, each by a model that had not seen its workload."""
    mape: float
    """Mean absolute error of those predictions, as a share of the time."""
    layouts: tuple[str, ...] = ()
    """Layouts of decisions; empty where an older model does not say."""
    algorithms: tuple[str, ...] = ()
    """Algorithms of decisions; empty where an older model does not say."""
    fused: tuple[str, ...] = ()
    """Operators of all sub-graphs; empty where an older model does not say."""
    unhinted: tuple[str, ...] | None = None
    """Anchor operators of sub-graphs without facts about their code; None if an older model does not say."""


@dataclass(frozen=True, kw_only=True)
class ModelCard:
    """Description of a trained model."""

    format_version: int
    features_version: int
    version: str
    """Short hash of all boosters."""
    features: tuple[str, ...]
    """Names of the sub-graphs' features, then of the boundaries'."""
    seed: int
    parts: Mapping[str, PartCard]
    """By unit; ``boundary`` for boundaries."""
    device_features: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """By unit on a device, the names of its features behind those of all sub-graphs."""

    @classmethod
    def read(cls, written: Any, *, file: str) -> ModelCard:
        """Read a card from JSON; fields that older models lack are filled in.

        Raises
        ------
        LayoutselError
            At the first thing that does not fit.
        """
        if isinstance(written, dict):
            parts = written.get("parts")
            known = parts if isinstance(parts, dict) else {}
            filled = {name: _with_all_fields(part) for name, part in known.items()}
            written = {"device_features": {}, **written, **({"parts": filled} if filled else {})}
        return documents.from_json(cls, written, file=file)


def _with_all_fields(part: Any) -> Any:
    return (
        {"layouts": [], "algorithms": [], "fused": [], "unhinted": None, **part}
        if isinstance(part, dict)
        else part
    )
