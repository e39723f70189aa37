"""Common input of all engines: an ONNX file with static shapes, its inputs, expected results."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import onnx

from layoutsel.benchmarking.accuracy import Compared, compared
from layoutsel.benchmarking.case_data import write_case_data
from layoutsel.core.memory_limits import most_bytes
from layoutsel.device.forked import CopyFailed, Forked, Limits, Stuck
from layoutsel.device.signature import Signature
from layoutsel.model import import_load, import_shapes
from layoutsel.model.input_use import uses_of
from layoutsel.references.drawn_inputs import drawn_inputs
from layoutsel.references.onnx_reference import onnx_logits, onnxruntime_reference
from tvm_passes.errors import LayoutselError

_LOG = logging.getLogger(__name__)

_REFERENCE_LIMIT_S = 900.0
"""Time limit of the reference, seconds."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """A model on disk with its inputs and expected results."""

    model: Path
    """ONNX file, with the logits of final softmaxes as additional outputs."""
    data: Path
    """File of :attr:`inputs` and :attr:`expected`; see :mod:`layoutsel.benchmarking.case_data`."""
    inputs: Mapping[str, np.ndarray]
    """Inputs by name."""
    expected: tuple[np.ndarray, ...]
    """Results of ONNX Runtime; empty if it is missing or cannot run the model."""
    compared: tuple[Compared, ...]
    """Description of each expected result."""


def case_name(model: str | Path) -> str:
    """Name of a model in the rows of results."""
    return import_load.model_name(model)


def write_case(
    model: str | Path,
    shapes: Mapping[str, tuple[int, ...]] | None,
    folder: Path,
    *,
    allow_external_links: bool = False,
) -> Case:
    """Read a model, fix its shapes, draw inputs and run the reference, without TVM.

    Parameters
    ----------
    model
        Path of an ONNX file, or a name such as ``light:resnet50``.
    shapes
        Shape of each input with a dynamic dimension.
    folder
        Folder for the files.
    allow_external_links
        True if links among a model's external data may lead out of its folder.

    Raises
    ------
    InvalidModel, InvalidShape, UnsupportedModel
        If the file is not a model, or a shape stays dynamic.
    """
    loaded = import_load.load_model(model, allow_external_links=allow_external_links)
    import_shapes.fix_inputs(loaded, shapes)
    signatures = [_signature(value) for value in loaded.graph.input]
    inputs = drawn_inputs(signatures, uses_of(loaded))
    feed = {spec.name: value for spec, value in zip(signatures, inputs, strict=True)}
    expected = _expected(loaded, feed)
    results = compared(loaded, expected)
    _expose_logits(loaded)
    file, data = folder / "model.onnx", folder / "data.npz"
    _save(loaded, file)
    write_case_data(data, feed, expected)
    return Case(model=file, data=data, inputs=feed, expected=tuple(expected), compared=results)


def _signature(value: onnx.ValueInfoProto) -> Signature:
    tensor = value.type.tensor_type
    return Signature(
        name=value.name,
        shape=tuple(dim.dim_value for dim in tensor.shape.dim),
        dtype=str(onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)),
    )


def _expected(model: onnx.ModelProto, feed: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    """Results of the reference; empty, with a warning, if it cannot run the model within limits."""
    if find_spec("onnxruntime") is None:
        _LOG.warning("ONNX Runtime is not installed: the results are not compared")
        return []

    def work(connection: Connection) -> None:
        connection.send(onnxruntime_reference(model, feed))

    limits = Limits(time_s=_REFERENCE_LIMIT_S, memory_bytes=most_bytes())
    try:
        with Forked(work, limits) as child:
            return list(child.receive())
    except (CopyFailed, Stuck, LayoutselError) as error:
        reason = str(error).strip().splitlines()[0]
        _LOG.warning("ONNX Runtime cannot run the model: the results are not compared: %s", reason)
    return []


def _expose_logits(model: onnx.ModelProto) -> None:
    present = {value.name for value in model.graph.output}
    known = {value.name: value for value in model.graph.value_info}
    for name in onnx_logits(model):
        if name not in present:
            unknown = onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None)
            model.graph.output.append(known.get(name, unknown))


def _save(model: onnx.ModelProto, file: Path) -> None:
    """Write a model; weights above the format's limit of 2 GB go to a separate file."""
    large = model.ByteSize() >= onnx.checker.MAXIMUM_PROTOBUF
    onnx.save(model, file, save_as_external_data=large)
