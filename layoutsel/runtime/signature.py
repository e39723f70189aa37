"""What a model takes and gives."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Protocol


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


class Named(Protocol):
    """An input or output of a model."""

    @property
    def name(self) -> str:
        """Its name."""
        ...

    @property
    def shape(self) -> tuple[int, ...]:
        """Its dimensions."""
        ...

    @property
    def dtype(self) -> str:
        """Its element type, as numpy spells it."""
        ...


def signatures(specs: Iterable[Named]) -> list[Signature]:
    """The signatures of inputs or outputs of an imported model."""
    return [Signature(name=spec.name, shape=spec.shape, dtype=spec.dtype) for spec in specs]
