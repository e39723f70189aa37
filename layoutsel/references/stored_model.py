"""ONNX models with their large weights in a file, for ONNX Runtime in another process."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from layoutsel.references.reference_engine import copy_without, import_onnxruntime
from layoutsel.references.stored_arrays import ArrayFile, StoredArrays

_LEAST_BYTES = 4096
"""Smallest weight that is stored, bytes; type inference needs shapes and axes in the model."""
_STORED_TYPES = frozenset(
    {
        *(TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE, TensorProto.BFLOAT16),
        *(TensorProto.INT8, TensorProto.UINT8, TensorProto.INT32, TensorProto.INT64),
    }
)
"""Element types of stored weights; weights of rarer types stay in the model."""


def weight_bytes(model: onnx.ModelProto) -> int:
    """Size of the weights that would be stored, bytes."""
    return sum(_nbytes(tensor) for tensor in model.graph.initializer if _is_stored(tensor))


@dataclass(frozen=True, kw_only=True)
class StoredModel:
    """A model without its large weights, and the file of these."""

    skeleton: onnx.ModelProto
    """Model that names the stored weights."""
    names: tuple[tuple[str, int], ...]
    """Name and ONNX type of each stored weight."""
    file: ArrayFile
    """Stored weights, in the same order."""

    @classmethod
    def of(cls, model: onnx.ModelProto) -> StoredModel:
        """Store the weights of `model`; raises :class:`OSError` if the disk is full."""
        skeleton = onnx.ModelProto()
        copy_without(model, skeleton, skipped="graph")
        copy_without(model.graph, skeleton.graph, skipped="initializer")
        names = []
        for tensor in model.graph.initializer:
            kept = skeleton.graph.initializer.add()
            if not _is_stored(tensor):
                kept.CopyFrom(tensor)
                continue
            kept.name, kept.data_type = tensor.name, tensor.data_type
            kept.dims.extend(tensor.dims)
            kept.data_location = TensorProto.EXTERNAL
            kept.external_data.add(key="location", value="memory")
            names.append((tensor.name, tensor.data_type))
        stored = (numpy_helper.to_array(t) for t in model.graph.initializer if _is_stored(t))
        return cls(skeleton=skeleton, names=tuple(names), file=ArrayFile(stored))

    def payload(self) -> dict[str, Any]:
        """Picklable arguments for :func:`open_stored`."""
        return {
            "model": self.skeleton.SerializeToString(),
            "names": self.names,
            "arrays": self.file.arrays,
        }


def open_stored(
    model: onnx.ModelProto, names: tuple[tuple[str, int], ...], arrays: StoredArrays, options: Any
) -> tuple[Any, list[np.ndarray]]:
    """Open a session of ONNX Runtime; returns also the arrays, which must outlive it."""
    onnxruntime = import_onnxruntime()
    mapped = arrays.mapped()
    value_of = onnxruntime.OrtValue.ortvalue_from_numpy_with_onnx_type
    values = [value_of(array, kind) for array, (_, kind) in zip(mapped, names, strict=True)]
    options.add_external_initializers([name for name, _ in names], values)
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return session, mapped


def _is_stored(tensor: TensorProto) -> bool:
    return tensor.data_type in _STORED_TYPES and _nbytes(tensor) >= _LEAST_BYTES


def _nbytes(tensor: TensorProto) -> int:
    """Size of a tensor's values, bytes; protocol buffers would serialize them for the answer."""
    return math.prod(tensor.dims) * helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
