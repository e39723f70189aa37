"""Operator calls as shapes and attributes, with the arithmetic work of each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from math import prod

import ml_dtypes
import numpy as np

from tvm_passes.errors import LayoutselError
from tvm_passes.operators import find_operator

assert ml_dtypes  # its import registers bfloat16 and the 8-bit floats with numpy


@dataclass(frozen=True)
class TypedShape:
    """Logical shape and element type of a tensor."""

    shape: tuple[int, ...]
    """Extents of the axes; empty for a scalar."""
    dtype: str = "float32"
    """Name of the element type, in numpy's or ml_dtypes' spelling."""

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
            f"got element type {dtype!r}; expected one that numpy knows, "
            "such as float32 or bfloat16"
        ) from error


@dataclass(frozen=True, kw_only=True)
class Operation:
    """One operator call."""

    operator: str
    """Name without a prefix, such as ``nn.conv2d``."""
    inputs: tuple[TypedShape, ...]
    """All tensor operands in order, weights and constants included."""
    outputs: tuple[TypedShape, ...]
    """All results in order."""
    attributes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    """Integer attributes, such as ``strides``."""

    @property
    def flops(self) -> int:
        """Number of arithmetic operations; a multiply-add counts as two.

        The operator's table entry counts them; without an entry, each element of the results counts
        once.

        Raises
        ------
        LayoutselError
            If an operand or attribute that the count needs is missing.
        """
        try:
            return find_operator(self.operator).flops(self)
        except (IndexError, KeyError) as error:
            raise LayoutselError(
                f"cannot count the FLOPs of {self.operator}: got operands "
                f"{', '.join(map(str, self.inputs)) or 'none'} and attributes "
                f"{dict(self.attributes)}; "
                "expected those of its definition, such as data and weights, or pool_size"
            ) from error

    @property
    def results(self) -> int:
        """Number of elements of all results."""
        return sum(tensor.elements for tensor in self.outputs)
