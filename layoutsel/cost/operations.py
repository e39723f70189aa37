"""Operator calls as shapes and attributes, and the arithmetic work of each: the one table of FLOP counts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from math import prod
from types import MappingProxyType

import ml_dtypes
import numpy as np

from tvm_passes.errors import LayoutselError
from tvm_passes.operators import MOVEMENT

assert ml_dtypes  # its import makes bfloat16 and the 8-bit floats known to numpy


@dataclass(frozen=True)
class TypedShape:
    """Logical shape and element type of a tensor."""

    shape: tuple[int, ...]
    dtype: str = "float32"

    @property
    def elements(self) -> int:
        """Number of elements."""
        return prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Size in bytes."""
        return _item_bytes(self.dtype) * self.elements

    def __str__(self) -> str:
        return "×".join(map(str, self.shape)) or "scalar"


@lru_cache(maxsize=256)
def _item_bytes(dtype: str) -> int:
    try:
        return np.dtype(dtype).itemsize
    except TypeError as error:
        raise LayoutselError(
            f"got element type {dtype!r}; expected one that numpy knows, such as float32 or bfloat16"
        ) from error


@dataclass(frozen=True, kw_only=True)
class Operation:
    """One operator call."""

    operator: str
    """Name without a prefix, such as ``nn.conv2d``."""
    inputs: tuple[TypedShape, ...]
    """All operands that are tensors, weights and constants included, in order."""
    outputs: tuple[TypedShape, ...]
    """All results."""
    attributes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    """Integer attributes, such as ``strides``."""

    @property
    def flops(self) -> int:
        """Arithmetic operations, a multiply-add counted as two.

        An operator without an entry in :data:`FLOPS` counts one per element of its results; one that only moves
        elements, none.

        Raises
        ------
        LayoutselError
            If an operand or attribute is missing that the count depends on.
        """
        count = FLOPS.get(self.operator)
        if count is None:
            return 0 if self.operator in _NO_WORK else self.results
        try:
            return count(self)
        except (IndexError, KeyError) as error:
            raise LayoutselError(
                f"cannot count the FLOPs of {self.operator}: got operands "
                f"{', '.join(map(str, self.inputs)) or 'none'} and attributes {dict(self.attributes)}; "
                "expected those of its definition, such as data and weights, or pool_size"
            ) from error

    @property
    def results(self) -> int:
        """Elements of all results."""
        return sum(tensor.elements for tensor in self.outputs)


def _convolution(call: Operation) -> int:
    return 2 * call.results * prod(call.inputs[1].shape[1:])


def _transposed_convolution(call: Operation) -> int:
    return 2 * call.inputs[0].elements * prod(call.inputs[1].shape[1:])


def _matmul(call: Operation) -> int:
    return 2 * call.results * call.inputs[0].shape[-1]


def _pooling(call: Operation) -> int:
    return call.results * prod(call.attributes["pool_size"])


def _over_input(operations: int) -> Callable[[Operation], int]:
    return lambda call: operations * call.inputs[0].elements


FLOPS: Mapping[str, Callable[[Operation], int]] = MappingProxyType(
    {
        **{f"nn.conv{rank}d": _convolution for rank in (1, 2, 3)},
        **{f"nn.conv{rank}d_transpose": _transposed_convolution for rank in (1, 2, 3)},
        **{f"nn.{kind}_pool{rank}d": _pooling for kind in ("max", "avg") for rank in (1, 2, 3)},
        **{f"nn.adaptive_avg_pool{rank}d": _over_input(1) for rank in (1, 2, 3)},
        **dict.fromkeys(("sum", "mean", "max", "min", "prod"), _over_input(1)),
        **dict.fromkeys(("nn.softmax", "nn.log_softmax"), _over_input(5)),
        **dict.fromkeys(("nn.layer_norm", "nn.group_norm", "nn.instance_norm"), _over_input(8)),
        **dict.fromkeys(("quantize", "dequantize"), _over_input(0)),
        "variance": _over_input(3),
        "matmul": _matmul,
    }
)
"""Arithmetic operations of a call, by operator."""

_NO_WORK = MOVEMENT | {"concat", "split", "take", "strided_slice"}
"""Operators that only move elements."""
