"""Facts about a node of ONNX that rules are checked on: attributes, shapes, small constants."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np


@dataclass(frozen=True, kw_only=True)
class TensorFacts:
    """A tensor as far as it is known before anything is computed."""

    shape: tuple[int | None, ...] | None
    """None for an unknown rank, and for an unknown dimension."""
    dtype: int
    """Element type as ONNX numbers it."""
    value: np.ndarray | None = None
    """Value of a small constant."""


@dataclass(frozen=True, kw_only=True)
class NodeFacts:
    """One node."""

    op: str
    """Operator, such as ``Conv``."""
    domain: str = ""
    """Domain of the operator; empty for ONNX's own."""
    version: int
    """Operator set of its domain."""
    attributes: Mapping[str, Any]
    """Values; texts as ``str``."""
    inputs: tuple[TensorFacts | None, ...]
    """None where an input is left out or unknown."""
    outputs: tuple[TensorFacts | None, ...]

    def shape(self, index: int) -> tuple[int, ...] | None:
        """Shape of an input; None where it is left out or not fully known."""
        return _static(self.inputs, index)

    def result(self, index: int = 0) -> tuple[int, ...] | None:
        """Shape of an output; None where it is not fully known."""
        return _static(self.outputs, index)

    def value(self, index: int) -> np.ndarray | None:
        """Value of an input that is a small constant."""
        known = self.inputs[index] if index < len(self.inputs) else None
        return None if known is None else known.value

    def dtype(self, index: int) -> int:
        """Element type of an input; 0 where it is unknown."""
        known = self.inputs[index] if index < len(self.inputs) else None
        return 0 if known is None else known.dtype


def _static(tensors: tuple[TensorFacts | None, ...], index: int) -> tuple[int, ...] | None:
    known = tensors[index] if index < len(tensors) else None
    if known is None or known.shape is None:
        return None
    dims = tuple(dim for dim in known.shape if dim is not None)
    return dims if len(dims) == len(known.shape) else None


Rule: TypeAlias = Callable[[NodeFacts], str | None]
"""Gives "got ...; expected ..." for a node that breaks it, else None."""


def broadcasts_to(shape: tuple[int, ...], target: tuple[int, ...]) -> bool:
    """Return whether numpy broadcasts `shape` to `target`."""
    padded = (1,) * (len(target) - len(shape)) + shape
    return len(padded) == len(target) and all(
        size in (1, wanted) for size, wanted in zip(padded, target, strict=True)
    )
