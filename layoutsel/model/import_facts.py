"""Facts about ONNX tensors and attributes, read from a model or written for messages."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import onnx_ir as ir
from onnx import NodeProto, TypeProto, helper

from layoutsel.model.import_evaluation import SMALL
from tvm_passes.onnx.facts import TensorFacts

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
"""Element types, numbers and booleans, that code can be generated for."""


_INDICES = (ir.DataType.INT32, ir.DataType.INT64)
"""Element types of indices."""


def facts_of_stored(tensor: ir.TensorProtocol) -> TensorFacts:
    """Read the facts of a stored tensor; with its value if it is small or may hold indices."""
    dims = tuple(int(dim) for dim in tensor.shape)
    small = math.prod(dims) <= SMALL and tensor.dtype is not ir.DataType.STRING
    value = np.asarray(tensor.numpy()) if small or tensor.dtype in _INDICES else None
    return TensorFacts(shape=dims, dtype=int(tensor.dtype), value=value)


def facts_of_type(proto: TypeProto | None) -> TensorFacts | None:
    """Read the facts of a type that ONNX inferred; None if it is not a tensor's."""
    if proto is None or not proto.HasField("tensor_type"):
        return None
    tensor = proto.tensor_type
    if not tensor.HasField("shape"):
        return TensorFacts(shape=None, dtype=tensor.elem_type)
    dims = tuple(dim.dim_value if dim.HasField("dim_value") else None for dim in tensor.shape.dim)
    return TensorFacts(shape=dims, dtype=tensor.elem_type)


def type_of(facts: TensorFacts) -> TypeProto:
    """Make a type for the inference of further types."""
    return helper.make_tensor_type_proto(facts.dtype, facts.shape)


def attribute_values(proto: NodeProto) -> dict[str, Any]:
    """Read the attributes of a node; texts as ``str``."""
    values = {a.name: helper.get_attribute_value(a) for a in proto.attribute}
    return {
        name: value.decode(errors="backslashreplace") if isinstance(value, bytes) else value
        for name, value in values.items()
    }


def is_small(facts: TensorFacts) -> bool:
    """True if a tensor is known to have at most :data:`SMALL` elements."""
    if facts.shape is None or None in facts.shape:
        return False
    return math.prod(d for d in facts.shape if d is not None) <= SMALL


def has_small_value(facts: TensorFacts) -> bool:
    """True if a tensor is a constant of at most :data:`SMALL` elements."""
    return facts.value is not None and facts.value.size <= SMALL


def facts_bytes(facts: TensorFacts) -> int | None:
    """Compute the size of a tensor, bytes; unknown dimensions count as 1.

    None for texts and unknown ranks.
    """
    if facts.shape is None or not facts.dtype or facts.dtype == ir.DataType.STRING:
        return None
    elements = math.prod(1 if dim is None else max(0, dim) for dim in facts.shape)
    return -(-elements * ir.DataType(facts.dtype).bitwidth // 8)


def facts_text(facts: TensorFacts) -> str:
    """Write type and shape, such as ``float[1, 3, ?]``."""
    dims = (
        "?" if facts.shape is None else ", ".join("?" if d is None else str(d) for d in facts.shape)
    )
    return f"{_dtype_name(facts.dtype)}[{dims}]"


def given_text(inputs: Iterable[TensorFacts | None]) -> str:
    """Write the types of a node's inputs for a message."""
    texts = [facts_text(facts) if facts else "?" for facts in inputs]
    return f" of {', '.join(texts)}" if texts else ""


def _dtype_name(dtype: int) -> str:
    return ir.DataType(dtype).name.lower()
