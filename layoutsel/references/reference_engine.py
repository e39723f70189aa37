"""ONNX Runtime without telemetry, for models in memory.

A model in memory names no files, so a model's content cannot make ONNX Runtime open any.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import onnx
from google.protobuf.message import Message

_TELEMETRY = "ORT_DISABLE_TELEMETRY"
"""Environment variable that ONNX Runtime reads once, during its import."""
MOST_SERIALIZED_BYTES = 2**31 - 1
"""Largest size of a serialized protocol buffer, bytes."""
_LEAST_APART_BYTES = 4096
"""Smallest weight that is passed separately, bytes; type inference needs shapes and axes in the
model."""


def import_onnxruntime() -> Any:
    """Import ONNX Runtime with its telemetry off.

    Its telemetry stores an identifier in the user's cache, leaves a temporary file, and warns if it
    cannot. The environment variables of the process are restored afterwards.

    Raises
    ------
    ImportError
        If it is not installed.
    """
    with _environment(_TELEMETRY, "1"):
        import onnxruntime
    return onnxruntime


@contextmanager
def _environment(name: str, value: str) -> Iterator[None]:
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


def open_session(
    model: onnx.ModelProto, options: Any, *, most_bytes: int = MOST_SERIALIZED_BYTES
) -> Any:
    """Open a session of ONNX Runtime for a model with all tensors in memory.

    Parameters
    ----------
    model
        The ONNX model.
    options
        Object ``onnxruntime.SessionOptions``; large weights are added to it if needed.
    most_bytes
        Size above which weights are passed separately, bytes.
    """
    onnxruntime = import_onnxruntime()
    weights: dict[str, Any] = {}
    if model.ByteSize() > most_bytes:
        model, weights = _with_weights_apart(model)
        options.add_external_initializers(list(weights), list(weights.values()))
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    session.weights = weights  # keeps them alive, as the session does not copy them
    return session


def _with_weights_apart(model: onnx.ModelProto) -> tuple[onnx.ModelProto, dict[str, Any]]:
    """Copy of `model` without its large weights, and these weights by name."""
    value_of = import_onnxruntime().OrtValue.ortvalue_from_numpy_with_onnx_type
    weights: dict[str, Any] = {}
    small = onnx.ModelProto()
    copy_without(model, small, skipped="graph")
    copy_without(model.graph, small.graph, skipped="initializer")
    for tensor in model.graph.initializer:
        kept = small.graph.initializer.add()
        if tensor.ByteSize() < _LEAST_APART_BYTES or tensor.data_type == onnx.TensorProto.STRING:
            kept.CopyFrom(tensor)
            continue
        kept.name, kept.data_type = tensor.name, tensor.data_type
        kept.dims.extend(tensor.dims)
        kept.data_location = onnx.TensorProto.EXTERNAL
        kept.external_data.add(key="location", value="memory")
        weights[tensor.name] = value_of(onnx.numpy_helper.to_array(tensor), tensor.data_type)
    return small, weights


def copy_without(source: Message, target: Message, *, skipped: str) -> None:
    """Copy all fields except `skipped`, which may be too large to copy twice."""
    for field, value in source.ListFields():
        if field.name == skipped:
            continue
        if isinstance(value, Message):
            getattr(target, field.name).CopyFrom(value)
        elif field.message_type is not None:
            getattr(target, field.name).extend(value)
        else:
            setattr(target, field.name, value)
