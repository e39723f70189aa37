"""ONNX Runtime, as everything here uses it: without telemetry, and given models in memory, never their paths.

A model in memory names no files, so nothing that a model says decides what ONNX Runtime opens.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import onnx
from google.protobuf.message import Message

_TELEMETRY = "ORT_DISABLE_TELEMETRY"
"""Environment variable that ONNX Runtime reads once, while it is imported."""
MOST_SERIALIZED_BYTES = 2**31 - 1
"""Bytes of a serialized protocol buffer."""
_LEAST_APART_BYTES = 4096
"""Size from which a weight is handed over apart; shapes and axes stay, which types are inferred from."""


def import_onnxruntime() -> Any:
    """Import ONNX Runtime with its telemetry off.

    Otherwise it keeps an identifier in the user's cache, leaves a file in the temporary folder, and prints a warning
    where it cannot. The caller's environment is afterwards as it was.

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
    """Open a session of ONNX Runtime for a model whose tensors are all within it.

    Parameters
    ----------
    options
        ``onnxruntime.SessionOptions``; weights of a model of more than `most_bytes` are added to them.
    """
    onnxruntime = import_onnxruntime()
    weights: dict[str, Any] = {}
    if model.ByteSize() > most_bytes:
        model, weights = _with_weights_apart(model)
        options.add_external_initializers(list(weights), list(weights.values()))
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    session.weights = weights  # the session reads them where they lie
    return session


def _with_weights_apart(model: onnx.ModelProto) -> tuple[onnx.ModelProto, dict[str, Any]]:
    """Copy of `model` without its large weights, and those."""
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
    """Copy all fields but one, which may be too large to copy twice."""
    for field, value in source.ListFields():
        if field.name == skipped:
            continue
        if isinstance(value, Message):
            getattr(target, field.name).CopyFrom(value)
        elif field.message_type is not None:
            getattr(target, field.name).extend(value)
        else:
            setattr(target, field.name, value)
