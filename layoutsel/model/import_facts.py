"""Facts about one ONNX node that its rules are checked on: attributes, shapes, and values of small constants."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import onnx_ir as ir
from onnx import NodeProto, TypeProto, helper

from layoutsel.model.import_evaluation import SMALL

REAL_NUMBERS = frozenset(
    {
        ir.DataType.BFLOAT16,
        ir.DataType.BOOL,
        ir.DataType.DOUBLE,
        ir.DataType.FLOAT,
        ir.DataType.FLOAT16,
        ir.DataType.INT16,
        ir.DataType.INT32,
        ir.DataType.INT64,
        ir.DataType.INT8,
        ir.DataType.UINT16,
        ir.DataType.UINT32,
        ir.DataType.UINT64,
        ir.DataType.UINT8,
    }
)
"""Element types that code is generated for."""


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
"""Gives "got ...; expected ..." for a node that breaks it, else nothing."""


def broadcasts_to(shape: tuple[int, ...], target: tuple[int, ...]) -> bool:
    """Whether numpy broadcasts `shape` to `target`."""
    padded = (1,) * (len(target) - len(shape)) + shape
    return len(padded) == len(target) and all(
        size in (1, wanted) for size, wanted in zip(padded, target, strict=True)
    )


_INDICES = (ir.DataType.INT32, ir.DataType.INT64)


def facts_of_stored(tensor: ir.TensorProtocol) -> TensorFacts:
    """Facts of a stored tensor; its value where it is small, or integers, which may be indices."""
    dims = tuple(int(dim) for dim in tensor.shape)
    small = math.prod(dims) <= SMALL and tensor.dtype is not ir.DataType.STRING
    value = np.asarray(tensor.numpy()) if small or tensor.dtype in _INDICES else None
    return TensorFacts(shape=dims, dtype=int(tensor.dtype), value=value)


def facts_of_type(proto: TypeProto | None) -> TensorFacts | None:
    """Facts of a type that ONNX inferred; None where it is no tensor's."""
    if proto is None or not proto.HasField("tensor_type"):
        return None
    tensor = proto.tensor_type
    if not tensor.HasField("shape"):
        return TensorFacts(shape=None, dtype=tensor.elem_type)
    dims = tuple(dim.dim_value if dim.HasField("dim_value") else None for dim in tensor.shape.dim)
    return TensorFacts(shape=dims, dtype=tensor.elem_type)


def type_of(facts: TensorFacts) -> TypeProto:
    """Type to infer others from."""
    return helper.make_tensor_type_proto(facts.dtype, facts.shape)


def attribute_values(proto: NodeProto) -> dict[str, Any]:
    """Values of a node's attributes, texts as ``str``."""
    values = {a.name: helper.get_attribute_value(a) for a in proto.attribute}
    return {
        name: value.decode(errors="backslashreplace") if isinstance(value, bytes) else value
        for name, value in values.items()
    }


def is_small(facts: TensorFacts) -> bool:
    """Whether a tensor is known to have few elements."""
    if facts.shape is None or None in facts.shape:
        return False
    return math.prod(d for d in facts.shape if d is not None) <= SMALL


def has_small_value(facts: TensorFacts) -> bool:
    """Whether a tensor is a constant of few elements."""
    return facts.value is not None and facts.value.size <= SMALL


def facts_bytes(facts: TensorFacts) -> int | None:
    """Bytes of a tensor, unknown dimensions counted as 1; None for texts and unknown ranks."""
    if facts.shape is None or not facts.dtype or facts.dtype == ir.DataType.STRING:
        return None
    elements = math.prod(1 if dim is None else max(0, dim) for dim in facts.shape)
    return -(-elements * ir.DataType(facts.dtype).bitwidth // 8)


def facts_text(facts: TensorFacts) -> str:
    """Type and shape, such as ``float[1, 3, ?]``."""
    dims = (
        "?" if facts.shape is None else ", ".join("?" if d is None else str(d) for d in facts.shape)
    )
    return f"{_dtype_name(facts.dtype)}[{dims}]"


def given_text(inputs: Iterable[TensorFacts | None]) -> str:
    """Types of a node's inputs, for a message."""
    texts = [facts_text(facts) if facts else "?" for facts in inputs]
    return f" of {', '.join(texts)}" if texts else ""


def _dtype_name(dtype: int) -> str:
    return ir.DataType(dtype).name.lower()
