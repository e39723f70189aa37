"""Description of a trained cost model, stored in its folder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from layoutsel import documents
from layoutsel.cost import features

FORMAT_VERSION = 3
"""Version of a trained model's files."""
RENEW = "Train it again with 'layoutsel train LOG -o FOLDER'"
"""Advice on a model that is damaged or too old to be read."""


@dataclass(frozen=True, kw_only=True)
class PartCard:
    """Training data and errors of one part of a model: one unit's part, or the boundaries'."""

    samples: int
    """Number of training samples."""
    workloads: int
    """Number of distinct workloads among the samples."""
    machines: tuple[str, ...]
    """Names of the profiles of the machines, or of the devices."""
    operators: tuple[str, ...]
    """Anchor operators; for boundaries, the kinds of steps."""
    forms: tuple[str, ...]
    """Precisions; for boundaries, layouts and units."""
    within_10: float
    """Share of samples predicted within 10 %, each by a booster trained without its workload."""
    mape: float
    """Mean absolute error of the same predictions, as a share of the time."""
    layouts: tuple[str, ...] = ()
    """Layouts of decisions; empty in older models."""
    algorithms: tuple[str, ...] = ()
    """Algorithms of decisions; empty in older models."""
    fused: tuple[str, ...] = ()
    """Operators of all sub-graphs; empty in older models."""
    unhinted: tuple[str, ...] | None = None
    """Anchor operators of sub-graphs without facts about their code; None in older models."""
    rates: tuple[float, ...] = ()
    """Rates of the terms of kernels on tiles; see :mod:`layoutsel.cost.tiles`."""


@dataclass(frozen=True, kw_only=True)
class ModelCard:
    """Description of a trained model."""

    format_version: int
    """Version of the files of the model."""
    features_version: int
    """Version of the features, :data:`layoutsel.cost.features.VERSION`."""
    version: str
    """Short hash of all boosters."""
    features: tuple[str, ...]
    """Names of the features of sub-graphs, then of those of boundaries."""
    seed: int
    """Seed of the training."""
    parts: Mapping[str, PartCard]
    """Part of each unit, by its name, and of boundaries, by ``boundary``."""
    device_features: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Names of a unit's additional features, for units on devices."""

    @classmethod
    def read(cls, written: Any, *, file: str) -> ModelCard:
        """Read a card from JSON; fields that older models lack get defaults.

        Raises
        ------
        LayoutselError
            If the JSON does not fit; the message names the first such field.
        """
        versions = {"format_version": FORMAT_VERSION, "features_version": features.VERSION}
        for name, version in versions.items():
            documents.check_version(written, name, (version,), renew=RENEW, file=file)
        if isinstance(written, dict):
            parts = written.get("parts")
            known = parts if isinstance(parts, dict) else {}
            filled = {name: _with_all_fields(part) for name, part in known.items()}
            written = {"device_features": {}, **written, **({"parts": filled} if filled else {})}
        return documents.from_json(cls, written, file=file)


def _with_all_fields(part: Any) -> Any:
    return (
        {"layouts": [], "algorithms": [], "fused": [], "unhinted": None, "rates": [], **part}
        if isinstance(part, dict)
        else part
    )
