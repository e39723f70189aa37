"""An ONNX model with its large weights in a file, for ONNX Runtime in another process."""

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
"""Size from which a weight is stored; shapes and axes stay in the model, which types are inferred from."""
_STORED_TYPES = frozenset({TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE, TensorProto.BFLOAT16,
                           TensorProto.INT8, TensorProto.UINT8, TensorProto.INT32, TensorProto.INT64})  # fmt: skip
"""Types that weights have; rarer ones stay in the model."""


def weight_bytes(model: onnx.ModelProto) -> int:
    """Bytes of the weights that would be stored."""
    return sum(_nbytes(tensor) for tensor in model.graph.initializer if _is_stored(tensor))


@dataclass(frozen=True, kw_only=True)
class StoredModel:
    """A model without its large weights, and these."""

    skeleton: onnx.ModelProto
    names: tuple[tuple[str, int], ...]
    """Name and ONNX type of each stored weight."""
    file: ArrayFile

    @classmethod
    def of(cls, model: onnx.ModelProto) -> StoredModel:
        """Store the weights of `model`; raises :class:`OSError` where there is no room."""
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
        """What :func:`open_stored` takes, picklable."""
        return {
            "model": self.skeleton.SerializeToString(),
            "names": self.names,
            "arrays": self.file.arrays,
        }


def open_stored(
    model: onnx.ModelProto, names: tuple[tuple[str, int], ...], arrays: StoredArrays, options: Any
) -> tuple[Any, list[np.ndarray]]:
    """A session of ONNX Runtime, and the arrays that it reads, which have to live as long."""
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
    """Bytes of the values of `tensor`; protocol buffers would write it out, twice, to tell its size."""
    return math.prod(tensor.dims) * helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
