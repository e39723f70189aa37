"""Checks of an ONNX model's stored data: UTF-8 texts, and type, shape and size of tensors."""

from __future__ import annotations

import math
from collections.abc import Mapping

import onnx_ir as ir
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from onnx import TensorProto

from layoutsel.errors import InvalidModel

_TYPES: Mapping[int, ir.DataType] = {int(dtype): dtype for dtype in ir.DataType if dtype}
"""Element types of this version of ONNX."""

_WIDE_FIELDS: Mapping[ir.DataType, tuple[str, int]] = {
    ir.DataType.FLOAT: ("float_data", 1),
    ir.DataType.COMPLEX64: ("float_data", 2),
    ir.DataType.DOUBLE: ("double_data", 1),
    ir.DataType.COMPLEX128: ("double_data", 2),
    ir.DataType.INT64: ("int64_data", 1),
    ir.DataType.UINT32: ("uint64_data", 1),
    ir.DataType.UINT64: ("uint64_data", 1),
    ir.DataType.STRING: ("string_data", 1),
}
"""Field of the values, and values per element; all other types use ``int32_data``."""

_FIELDS = (
    "raw_data",
    "int32_data",
    *dict.fromkeys(name for name, _ in _WIDE_FIELDS.values()),
)
_MOST_ELEMENTS = 1 << 62
"""Maximum number of elements of a plausible shape."""


def tensor_problem(tensor: TensorProto) -> str | None:
    """Describe a contradiction in a stored tensor as "got ...; expected ..."; None without one.

    Data in external files is not checked.
    """
    dtype = _TYPES.get(tensor.data_type)
    if dtype is None:
        return (
            f"got element type {tensor.data_type}; "
            "expected one of ONNX's types, such as 1 (float32)"
        )
    if tensor.data_location == TensorProto.EXTERNAL:
        return None
    dims = tuple(tensor.dims)
    if any(dim < 0 for dim in dims) or math.prod(dims) > _MOST_ELEMENTS:
        return f"got dimensions {list(dims)}; expected non-negative ones of a possible size"
    return _data_problem(tensor, dtype, math.prod(dims))


def _data_problem(tensor: TensorProto, dtype: ir.DataType, elements: int) -> str | None:
    filled = [name for name in _FIELDS if len(getattr(tensor, name))]
    if len(filled) > 1:
        return f"got values in {' and '.join(filled)}; expected one of them"
    field, each = _WIDE_FIELDS.get(dtype, ("int32_data", 1))
    what = f"{dtype.name.lower()}{list(tensor.dims)}"
    if filled == ["raw_data"] or (tensor.HasField("raw_data") and not filled):
        if dtype is ir.DataType.STRING:
            return f"got raw bytes for {what}; expected string_data"
        got, expected = len(tensor.raw_data), -(-elements * dtype.bitwidth // 8)
        return None if got == expected else f"got {got} bytes for {what}; expected {expected}"
    if filled not in ([], [field]):
        return f"got values in {filled[0]} for {what}; expected {field}"
    per_value = max(1, 8 // dtype.bitwidth) if field == "int32_data" else 1
    got, expected = len(getattr(tensor, field)), -(-elements * each // per_value)
    return None if got == expected else f"got {got} values for {what}; expected {expected}"


def check_texts(message: Message, where: str) -> None:
    """Reject a message with a text that is not UTF-8, which ONNX's protocol buffers accept.

    Raises
    ------
    InvalidModel
        If there is such a text; the message names its field.
    """
    if isinstance(message, TensorProto):
        # The other fields hold values, perhaps hundreds of megabytes.
        _check_text(message.name, "TensorProto.name", where)
        return
    for descriptor, value in message.ListFields():
        kind = descriptor.type
        if kind not in (FieldDescriptor.TYPE_STRING, FieldDescriptor.TYPE_MESSAGE):
            continue
        for item in value if descriptor.is_repeated else (value,):
            if kind == FieldDescriptor.TYPE_STRING:
                _check_text(item, f"{message.DESCRIPTOR.name}.{descriptor.name}", where)
            else:
                check_texts(item, where)


def _check_text(text: str | bytes, name: str, where: str) -> None:
    if not isinstance(text, str):
        raise InvalidModel(
            f"{where}: the model is damaged: got {text!r} in {name}; expected UTF-8. "
            "Export or download it again"
        )
