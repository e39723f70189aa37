"""What all engines get: one ONNX file with static shapes, the same inputs, and the results to expect."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx

from layoutsel.benchmarking.accuracy import Compared, compared
from layoutsel.device.signature import Signature
from layoutsel.model import import_load, import_shapes
from layoutsel.model.input_use import uses_of
from layoutsel.references.drawn_inputs import drawn_inputs
from layoutsel.references.onnx_reference import onnx_logits, onnxruntime_reference

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Case:
    """A model on disk with its inputs and expected results."""

    model: Path
    """The ONNX file; behind the model's outputs it returns the logits of final softmaxes."""
    data: Path
    """:attr:`inputs` (``in:name``) and :attr:`expected` (``out000``, …), as ``.npz``."""
    inputs: Mapping[str, np.ndarray]
    expected: tuple[np.ndarray, ...]
    """Results of ONNX Runtime; empty where it is missing or cannot run the model."""
    compared: tuple[Compared, ...]
    """What each of :attr:`expected` is."""


def case_name(model: str | Path) -> str:
    """What rows call a model."""
    return import_load.model_name(model)


def write_case(
    model: str | Path,
    shapes: Mapping[str, tuple[int, ...]] | None,
    folder: Path,
    *,
    allow_external_links: bool = False,
) -> Case:
    """Read `model`, fix its shapes, make inputs and run the reference. Needs no import into TVM.

    Raises
    ------
    InvalidModel, InvalidShape, UnsupportedModel
        If the file is no model, or its shapes stay open.
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
    arrays = {f"in:{key}": value for key, value in feed.items()}
    arrays |= {f"out{index:03d}": value for index, value in enumerate(expected)}
    np.savez(data, allow_pickle=False, **arrays)
    return Case(model=file, data=data, inputs=feed, expected=tuple(expected), compared=results)


def _signature(value: onnx.ValueInfoProto) -> Signature:
    tensor = value.type.tensor_type
    return Signature(
        name=value.name,
        shape=tuple(dim.dim_value for dim in tensor.shape.dim),
        dtype=str(onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)),
    )


def _expected(model: onnx.ModelProto, feed: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    """Results of the reference; none where it cannot run the model."""
    try:
        return onnxruntime_reference(model, feed)
    except ImportError:
        _LOG.warning("ONNX Runtime is not installed: the results are not compared")
    except Exception as error:
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
    """Write `model`; weights beyond the format's limit of 2 GB go beside it."""
    large = model.ByteSize() >= onnx.checker.MAXIMUM_PROTOBUF
    onnx.save(model, file, save_as_external_data=large)
