"""Inputs and outputs of a model: names, shapes, element types, and the values that its indices may have."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

from layoutsel.errors import InputError


@dataclass(frozen=True, kw_only=True)
class ValueRange:
    """Legal values of some elements of an input that the network reads as indices."""

    low: int
    high: int
    """The largest legal value."""
    start: int
    """First of the elements, counted row by row."""
    stop: int
    """End of the elements, itself outside."""
    step: int = 1
    """Distance between the elements."""

    def of(self, flat: Any) -> Any:
        """The elements, of an input that is `flat`."""
        return flat[self.start : self.stop : self.step]

    def holds(self, value: float) -> bool:
        """True if a value is legal; a float is one by its integral part, no number never is."""
        return self.low - 1 < value < self.high + 1


@dataclass(frozen=True, kw_only=True)
class Signature:
    """Name, shape and element type of a model's input or output."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    ranges: tuple[ValueRange, ...] = ()
    """Legal values of an input's elements; others may have any."""

    @classmethod
    def read(cls, entry: Mapping[str, Any]) -> Signature:
        """From an artifact's header; older ones hold no ranges."""
        ranges = tuple(ValueRange(**one) for one in entry.get("ranges", ()))
        return cls(
            name=entry["name"], shape=tuple(entry["shape"]), dtype=entry["dtype"], ranges=ranges
        )

    def to_json(self) -> dict[str, Any]:
        """For an artifact's header."""
        return asdict(self)

    def check_values(self, flat: Any, ends: Callable[[Any], tuple[float, float]]) -> None:
        """Check the values of an input against :attr:`ranges`.

        Parameters
        ----------
        flat
            The input's elements, row by row.
        ends
            Gives the least and the largest of some of them; no number where there is one.

        Raises
        ------
        InputError
            If a value is outside.
        """
        for one in self.ranges:
            if not all(map(one.holds, ends(one.of(flat)))):
                raise InputError(self._outside(one, one.of(flat)))

    def _outside(self, legal: ValueRange, values: Sequence[float]) -> str:
        place, value = next(
            (place, value) for place, value in enumerate(values) if not legal.holds(value)
        )
        position = _position(legal.start + place * legal.step, self.shape)
        return (
            f"input {self.name!r}: got {value} at position {position}; expected {legal.low} to {legal.high}, as the "
            f"network reads it as an index. Correct the value, or compile with a table that is large enough"
        )


def _position(element: int, shape: Sequence[int]) -> tuple[int, ...]:
    """Coordinates of an element that is counted row by row."""
    strides = [math.prod(shape[axis + 1 :]) for axis in range(len(shape))]
    return tuple(element // stride % size for stride, size in zip(strides, shape, strict=True))


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

    @property
    def ranges(self) -> tuple[ValueRange, ...]:
        """Legal values of its elements."""
        ...


def signatures(specs: Iterable[Named]) -> list[Signature]:
    """The signatures of inputs or outputs of an imported model."""
    return [
        Signature(name=spec.name, shape=spec.shape, dtype=spec.dtype, ranges=spec.ranges)
        for spec in specs
    ]
