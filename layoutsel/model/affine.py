"""Values that depend on an element of an input by constants alone, and which elements give legal values."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import astuple, dataclass
from typing import TypeAlias

import numpy as np

Array: TypeAlias = "np.ndarray | float"
"""One number for all elements of a tensor, or an array that broadcasts to it."""
Move: TypeAlias = Callable[[np.ndarray], Sequence[np.ndarray]]
"""Moves the elements of a tensor; the results of an operator."""


@dataclass(frozen=True)
class Affine:
    """``clip(scale * element + offset, low, high)``, in float64: integers up to 2^53 are exact."""

    scale: Array = 1.0
    offset: Array = 0.0
    low: Array = -np.inf
    high: Array = np.inf

    def preimage(self, least: Array, most: Array) -> tuple[Array, Array]:
        """The least and the largest element that gives `least` to `most`; infinite where any does."""
        low_is_legal, high_is_legal = self.low >= least, self.high <= most
        at_least, at_most = (least - self.offset) / self.scale, (most - self.offset) / self.scale
        rises = np.asarray(self.scale) > 0
        low = np.where(rises, at_least, at_most)
        high = np.where(rises, at_most, at_least)
        low = np.where(np.where(rises, low_is_legal, high_is_legal), -np.inf, low)
        high = np.where(np.where(rises, high_is_legal, low_is_legal), np.inf, high)
        return np.ceil(low), np.floor(high)

    def plus(self, number: Array) -> Affine:
        """The sum with a constant."""
        return Affine(self.scale, self.offset + number, self.low + number, self.high + number)

    def times(self, number: Array) -> Affine:
        """The product with a constant, no element of which is 0."""
        one, two = self.low * number, self.high * number
        return Affine(
            self.scale * number, self.offset * number, np.minimum(one, two), np.maximum(one, two)
        )

    def limited(self, least: Array = -np.inf, most: Array = np.inf) -> Affine:
        """The value between two constants, the second of which decides."""
        low = np.minimum(np.maximum(self.low, least), most)
        high = np.minimum(np.maximum(self.high, least), most)
        return Affine(self.scale, self.offset, low, high)

    def moved(self, shape: tuple[int, ...], move: Move, results: int) -> list[Affine]:
        """The form of each of the results of an operator that moves the elements of a tensor of `shape`."""
        fields = [
            [one] * results
            if np.ndim(one) == 0
            else move(np.ascontiguousarray(np.broadcast_to(one, shape)))
            for one in astuple(self)
        ]
        return [Affine(*each) for each in zip(*fields, strict=True)]


def joined(forms: Sequence[Affine], shapes: Sequence[tuple[int, ...]], axis: int) -> Affine:
    """The form of tensors of `shapes`, one after the other along `axis`."""
    if all(form == Affine() for form in forms):
        return Affine()
    fields = zip(*map(astuple, forms), strict=True)
    return Affine(
        *(
            np.concatenate(
                [np.broadcast_to(one, shape) for one, shape in zip(each, shapes, strict=True)], axis
            )
            for each in fields
        )
    )


def number_of(array: np.ndarray) -> Array:
    """A constant as one number where all its elements are the same."""
    values = array.astype(np.float64)
    is_uniform = values.size > 0 and bool((values == values.flat[0]).all())
    return float(values.flat[0]) if is_uniform else values


_Numbers = Sequence["Array | None"]


def _sum(form: Affine, numbers: _Numbers, _is_left: bool) -> Affine | None:
    return form.plus(numbers[0]) if numbers[0] is not None else None


def _difference(form: Affine, numbers: _Numbers, is_left: bool) -> Affine | None:
    if numbers[0] is None:
        return None
    return form.plus(-numbers[0]) if is_left else form.times(-1.0).plus(numbers[0])


def _product(form: Affine, numbers: _Numbers, _is_left: bool) -> Affine | None:
    return form.times(numbers[0]) if numbers[0] is not None and np.all(numbers[0]) else None


def _clipped(form: Affine, numbers: _Numbers, is_left: bool) -> Affine | None:
    low, high = (*numbers, None, None)[:2]
    least, most = -np.inf if low is None else low, np.inf if high is None else high
    return form.limited(least, most) if is_left else None


def _largest(form: Affine, numbers: _Numbers, _is_left: bool) -> Affine | None:
    for number in numbers:
        form = form.limited(-np.inf if number is None else number)
    return form


def _smallest(form: Affine, numbers: _Numbers, _is_left: bool) -> Affine | None:
    for number in numbers:
        form = form.limited(most=np.inf if number is None else number)
    return form


ARITHMETIC: Mapping[str, Callable[[Affine, _Numbers, bool], Affine | None]] = {
    "Add": _sum,
    "Clip": _clipped,
    "Max": _largest,
    "Min": _smallest,
    "Mul": _product,
    "Neg": lambda form, _numbers, _is_left: form.times(-1.0),
    "Sub": _difference,
}
"""The value after an operator of ONNX, by its name: of its form, the other inputs, and whether it is the first; None
where it is no such form."""
