"""FLOP counts of operators: the prior of every cost. A multiply-add counts as two."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import prod
from typing import Protocol, TypeAlias


class SizedTensor(Protocol):
    """A tensor, as far as FLOP counts need it."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Logical shape."""

    @property
    def elements(self) -> int:
        """Number of elements."""


class SizedCall(Protocol):
    """An operator call, as far as FLOP counts need it: shapes and attributes."""

    @property
    def inputs(self) -> Sequence[SizedTensor]:
        """All operands that are tensors, weights and constants included, in order."""

    @property
    def attributes(self) -> Mapping[str, tuple[int, ...]]:
        """Integer attributes, such as ``strides``."""

    @property
    def results(self) -> int:
        """Elements of all results."""


FlopCount: TypeAlias = Callable[[SizedCall], int]


def one_per_result(call: SizedCall) -> int:
    """FLOPs of an operator that computes each element of its results in one operation."""
    return call.results


def no_work(_call: SizedCall) -> int:
    """FLOPs of an operator that only moves elements."""
    return 0


def per_input(operations: int) -> FlopCount:
    """FLOPs of an operator with so many operations for each element of its first operand."""
    return lambda call: operations * call.inputs[0].elements


def convolution(call: SizedCall) -> int:
    """FLOPs of a convolution: a product for each result and element of its filter."""
    return 2 * call.results * prod(call.inputs[1].shape[1:])


def transposed_convolution(call: SizedCall) -> int:
    """FLOPs of a transposed convolution: a product for each input and element of its filter."""
    return 2 * call.inputs[0].elements * prod(call.inputs[1].shape[1:])


def matmul(call: SizedCall) -> int:
    """FLOPs of a matrix product."""
    return 2 * call.results * call.inputs[0].shape[-1]


def pooling(call: SizedCall) -> int:
    """FLOPs of a pooling: one for each result and element of its window."""
    return call.results * prod(call.attributes["pool_size"])
