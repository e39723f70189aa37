"""Converters of convolutions and matrix products; a bias becomes a separate addition."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tvm import relax
from tvm.relax import Expr
from tvm.relax.frontend.onnx import onnx_frontend

from tvm_passes.onnx.padding import resolve_auto_pad, resolve_output_shape, static_shape
from tvm_passes.onnx.support import Converter, stock


def _node_name(attributes: Mapping[str, Any]) -> str:
    return attributes["tvm_custom"]["binding"]


def _add_bias(builder: relax.BlockBuilder, value: Expr, bias: Expr | None, name: str) -> Expr:
    """Emit `value` under the node's own name; return it plus a per-channel bias."""
    if bias is None:
        return value
    value = builder.emit(value, name)
    spatial = len(static_shape(value)) - 2
    return relax.op.add(value, relax.op.reshape(bias, [1, -1, *[1] * spatial]))


def _convolution(name: str) -> Converter:
    """Make the converter of a convolution: TVM's, with the bias as a separate addition.

    The convolution keeps the node's name.
    """

    def convert(builder, inputs, attributes, state, opset) -> Expr:  # noqa: ANN001
        if name == "Conv":
            resolve_auto_pad(inputs, attributes)
        else:
            resolve_output_shape(inputs, attributes)
        bias = inputs[2]
        without_bias = onnx_frontend.onnx_input([*inputs[:2]])
        value = stock(name)(builder, without_bias, attributes, state, opset)
        return _add_bias(builder, value, bias, _node_name(attributes))

    return convert


def gemm(builder, inputs, attributes, state, opset) -> Expr:  # noqa: ANN001
    """Convert Gemm to a product and a separate addition of the bias."""
    product = stock("Gemm")(
        builder, onnx_frontend.onnx_input([*inputs[:2], None]), dict(attributes), state, opset
    )
    if inputs[2] is None:
        return product
    bias, beta = inputs[2], attributes.get("beta", 1.0)
    if beta != 1.0:
        bias = relax.op.multiply(bias, relax.const(beta, str(inputs[0].ty.dtype)))
    return relax.op.add(builder.emit(product, _node_name(attributes)), bias)


conv = _convolution("Conv")
conv_transpose = _convolution("ConvTranspose")
