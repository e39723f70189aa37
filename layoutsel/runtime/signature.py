"""What a model takes and gives."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Signature:
    """Name, shape and element type of a model's input or output."""

    name: str
    shape: tuple[int, ...]
    dtype: str

    @classmethod
    def read(cls, entry: Mapping[str, Any]) -> Signature:
        """From an artifact's header."""
        return cls(name=entry["name"], shape=tuple(entry["shape"]), dtype=entry["dtype"])

    def to_json(self) -> dict[str, Any]:
        """For an artifact's header."""
        return asdict(self)
