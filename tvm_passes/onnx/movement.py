"""Converters of operators that reorder, copy or cut tensors."""

from __future__ import annotations

import numpy as np
from tvm import relax
from tvm.relax import Expr
from tvm.relax.frontend.onnx import onnx_frontend

from tvm_passes.errors import UnsupportedModel
from tvm_passes.onnx.padding import static_shape
from tvm_passes.onnx.support import array_of, constant, stock

_PAD_MODES = {"constant": "constant", "reflect": "reflect", "edge": "replicate", "wrap": "circular"}


def pad(_builder, inputs, attributes, _state, opset) -> Expr:  # noqa: ANN001
    """Convert Pad with constant widths; a negative width removes elements."""
    data = inputs[0]
    ndim = len(static_shape(data))
    if opset >= 11:
        pads, value = array_of(inputs[1]), array_of(inputs[2])
        if pads is None or (inputs[2] is not None and value is None):
            raise UnsupportedModel("its padding is computed from data; expected constants")
        axes = array_of(inputs[3])
    else:
        pads, value, axes = np.asarray(attributes["pads"]), attributes.get("value"), None
    widths = np.zeros((ndim, 2), dtype="int64")
    widths[list(range(ndim)) if axes is None else axes % ndim] = pads.reshape(2, -1).T
    mode = attributes.get("mode", b"constant").decode()
    if (widths < 0).any():
        begins = np.maximum(-widths[:, 0], 0)
        ends = np.asarray(static_shape(data)) - np.maximum(-widths[:, 1], 0)
        data = relax.op.strided_slice(data, list(range(ndim)), begins.tolist(), ends.tolist())
        widths = np.maximum(widths, 0)
    fill = 0.0 if value is None else float(np.asarray(value).reshape(-1)[0])
    return relax.op.nn.pad(data, widths.reshape(-1).tolist(), _PAD_MODES[mode], fill)


def tile(builder, inputs, attributes, state, opset) -> Expr:  # noqa: ANN001
    """Convert Tile to Relax's operator if the repeats are constant, else by TVM's converter."""
    repeats = array_of(inputs[1])
    if repeats is None:
        return stock("Tile")(builder, inputs, attributes, state, opset)
    return relax.op.tile(inputs[0], repeats.tolist())


def reshape(builder, inputs, attributes, state, opset) -> Expr:  # noqa: ANN001
    """Convert Reshape by TVM's converter; in old operator sets the shape is an attribute."""
    if "shape" in attributes:
        shape = constant(attributes.pop("shape"), "int64")
        inputs = onnx_frontend.onnx_input([inputs[0], shape])
    return stock("Reshape")(builder, inputs, attributes, state, opset)
