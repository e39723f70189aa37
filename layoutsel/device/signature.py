"""Signatures of a model's inputs and outputs: names, shapes, element types, legal indices."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

from layoutsel.errors import InputError


@dataclass(frozen=True, kw_only=True)
class ValueRange:
    """Legal values of some elements of an input that the network uses as indices."""

    low: int
    """Smallest legal value."""
    high: int
    """Largest legal value."""
    start: int
    """Position of the first element, counted row by row."""
    stop: int
    """Position after the last element."""
    step: int = 1
    """Distance between the elements."""

    def of(self, flat: Any) -> Any:
        """Select the elements from the flattened input `flat`."""
        return flat[self.start : self.stop : self.step]

    def holds(self, value: float) -> bool:
        """True if the integral part of `value` is legal; False for NaN."""
        return self.low - 1 < value < self.high + 1


@dataclass(frozen=True, kw_only=True)
class Signature:
    """Name, shape and element type of an input or output of a model or stage."""

    name: str
    """Name of the input or output."""
    shape: tuple[int, ...]
    """Dimensions."""
    dtype: str
    """Element type, as numpy spells it."""
    ranges: tuple[ValueRange, ...] = ()
    """Legal values of an input's elements; elements outside these ranges may have any value."""
    layout: str = ""
    """Layout of a tensor between stages, such as ``NHWC``; empty for row-major order."""

    @classmethod
    def read(cls, entry: Mapping[str, Any]) -> Signature:
        """Read a signature of an artifact's header; older headers have no ranges."""
        ranges = tuple(ValueRange(**one) for one in entry.get("ranges", ()))
        return cls(
            name=entry["name"],
            shape=tuple(entry["shape"]),
            dtype=entry["dtype"],
            ranges=ranges,
            layout=entry.get("layout", ""),
        )

    def to_json(self) -> dict[str, Any]:
        """Entry of an artifact's header."""
        return asdict(self)

    def check_values(self, flat: Any, ends: Callable[[Any], tuple[float, float]]) -> None:
        """Check the values of an input against :attr:`ranges`.

        Parameters
        ----------
        flat
            Elements of the input, row by row.
        ends
            Returns the minimum and the maximum of some elements; NaN if any of them is NaN.

        Raises
        ------
        InputError
            If a value is out of range.
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
            f"input {self.name!r}: got {value} at position {position}; expected {legal.low} to "
            f"{legal.high}, as the network uses it as an index. Correct the value, or compile "
            f"with a table that is large enough"
        )


def _position(element: int, shape: Sequence[int]) -> tuple[int, ...]:
    """Coordinates of an element, given its position row by row."""
    strides = [math.prod(shape[axis + 1 :]) for axis in range(len(shape))]
    return tuple(element // stride % size for stride, size in zip(strides, shape, strict=True))


class Named(Protocol):
    """Protocol for an input or output of an imported model."""

    @property
    def name(self) -> str:
        """Name of the input or output."""
        ...

    @property
    def shape(self) -> tuple[int, ...]:
        """Dimensions."""
        ...

    @property
    def dtype(self) -> str:
        """Element type, as numpy spells it."""
        ...

    @property
    def ranges(self) -> tuple[ValueRange, ...]:
        """Legal values of the elements."""
        ...


def signatures(specs: Iterable[Named]) -> list[Signature]:
    """Signatures of inputs or outputs of an imported model."""
    return [
        Signature(name=spec.name, shape=spec.shape, dtype=spec.dtype, ranges=spec.ranges)
        for spec in specs
    ]
