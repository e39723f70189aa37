"""Facts about an ONNX node that its rules are checked on: attributes, shapes, small constants."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np


@dataclass(frozen=True, kw_only=True)
class TensorFacts:
    """Facts about a tensor that are known before anything is computed."""

    shape: tuple[int | None, ...] | None
    """Extents, None for an unknown one; None in place of all if even the rank is unknown."""
    dtype: int
    """Number of the element type in ONNX (``TensorProto.DataType``); 0 if it is unknown."""
    value: np.ndarray | None = None
    """Value of a small constant; None for other tensors."""


@dataclass(frozen=True, kw_only=True)
class NodeFacts:
    """Facts about one node and its tensors."""

    op: str
    """Operator, such as ``Conv``."""
    domain: str = ""
    """Domain of the operator; empty for ONNX's own."""
    version: int
    """Version of the operator set of its domain."""
    attributes: Mapping[str, Any]
    """Attributes by name; texts are ``str``."""
    inputs: tuple[TensorFacts | None, ...]
    """Facts about each input; None for one that is omitted or unknown."""
    outputs: tuple[TensorFacts | None, ...]

    def shape(self, index: int) -> tuple[int, ...] | None:
        """Return the shape of an input; None if it is omitted or not fully known."""
        return _static(self.inputs, index)

    def result(self, index: int = 0) -> tuple[int, ...] | None:
        """Return the shape of an output; None if it is not fully known."""
        return _static(self.outputs, index)

    def value(self, index: int) -> np.ndarray | None:
        """Return the value of an input that is a small constant; None for other inputs."""
        known = self.inputs[index] if index < len(self.inputs) else None
        return None if known is None else known.value

    def dtype(self, index: int) -> int:
        """Return the element type of an input, as ONNX numbers it; 0 if it is unknown."""
        known = self.inputs[index] if index < len(self.inputs) else None
        return 0 if known is None else known.dtype


def _static(tensors: tuple[TensorFacts | None, ...], index: int) -> tuple[int, ...] | None:
    known = tensors[index] if index < len(tensors) else None
    if known is None or known.shape is None:
        return None
    dims = tuple(dim for dim in known.shape if dim is not None)
    return dims if len(dims) == len(known.shape) else None


Rule: TypeAlias = Callable[[NodeFacts], str | None]
"""Checks a node: returns "got …; expected …" if the node breaks the rule, else None."""


def broadcasts_to(shape: tuple[int, ...], target: tuple[int, ...]) -> bool:
    """Return whether numpy broadcasts `shape` to `target`."""
    padded = (1,) * (len(target) - len(shape)) + shape
    return len(padded) == len(target) and all(
        size in (1, wanted) for size, wanted in zip(padded, target, strict=True)
    )
