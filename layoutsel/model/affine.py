"""Affine forms: values that depend on one input element and constants, and their legal elements."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import astuple, dataclass
from typing import TypeAlias

import numpy as np

Array: TypeAlias = "np.ndarray | float"
"""A number for all elements of a tensor, or an array that broadcasts to it."""
Move: TypeAlias = Callable[[np.ndarray], Sequence[np.ndarray]]
"""Function that moves the elements of a tensor; returns the results of an operator."""


@dataclass(frozen=True)
class Affine:
    """``clip(scale * element + offset, low, high)``, in float64: integers up to 2^53 are exact."""

    scale: Array = 1.0
    """Factor of the element; never 0."""
    offset: Array = 0.0
    """Summand after the scaling."""
    low: Array = -np.inf
    """Lower limit of the value."""
    high: Array = np.inf
    """Upper limit of the value."""

    def preimage(self, least: Array, most: Array) -> tuple[Array, Array]:
        """Compute the range of elements whose values lie in a range.

        Parameters
        ----------
        least, most
            Range of legal values.

        Returns
        -------
        tuple
            Smallest and largest legal element; infinite where no element is too small or too large.
        """
        low_is_legal, high_is_legal = self.low >= least, self.high <= most
        at_least, at_most = (least - self.offset) / self.scale, (most - self.offset) / self.scale
        rises = np.asarray(self.scale) > 0
        low = np.where(rises, at_least, at_most)
        high = np.where(rises, at_most, at_least)
        low = np.where(np.where(rises, low_is_legal, high_is_legal), -np.inf, low)
        high = np.where(np.where(rises, high_is_legal, low_is_legal), np.inf, high)
        return np.ceil(low), np.floor(high)

    def plus(self, number: Array) -> Affine:
        """Add a constant."""
        return Affine(self.scale, self.offset + number, self.low + number, self.high + number)

    def times(self, number: Array) -> Affine:
        """Multiply by a constant without zeros."""
        one, two = self.low * number, self.high * number
        return Affine(
            self.scale * number, self.offset * number, np.minimum(one, two), np.maximum(one, two)
        )

    def limited(self, least: Array = -np.inf, most: Array = np.inf) -> Affine:
        """Limit the value to two constants; if they contradict, `most` applies."""
        low = np.minimum(np.maximum(self.low, least), most)
        high = np.minimum(np.maximum(self.high, least), most)
        return Affine(self.scale, self.offset, low, high)

    def moved(self, shape: tuple[int, ...], move: Move, results: int) -> list[Affine]:
        """Compute the forms after an operator that moves the elements of a tensor.

        Parameters
        ----------
        shape
            Shape of the tensor.
        move
            Function that moves its elements.
        results
            Number of results of `move`.

        Returns
        -------
        list of Affine
            Form of each result.
        """
        fields = [
            [one] * results
            if np.ndim(one) == 0
            else move(np.ascontiguousarray(np.broadcast_to(one, shape)))
            for one in astuple(self)
        ]
        return [Affine(*each) for each in zip(*fields, strict=True)]


def joined(forms: Sequence[Affine], shapes: Sequence[tuple[int, ...]], axis: int) -> Affine:
    """Concatenate forms along an axis, as a Concat does with their tensors.

    Parameters
    ----------
    forms
        Form of each tensor.
    shapes
        Shape of each tensor.
    axis
        Axis of the concatenation.
    """
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
    """Return a constant as one number if all its elements are equal, else as a float64 array."""
    values = array.astype(np.float64)
    is_uniform = values.size > 0 and bool((values == values.flat[0]).all())
    return float(values.flat[0]) if is_uniform else values


_Numbers = Sequence["Array | None"]
"""Constant inputs of an operator; None for an omitted one."""


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
"""Functions that compute the form after an ONNX operator, by its name.

Each takes the form, the other inputs, and True if the form is that of the first input. The result
is None if the operator's result has no affine form.
"""
