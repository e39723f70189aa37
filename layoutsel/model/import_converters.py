"""Converters that replace those of TVM's ONNX importer, where its result is slow, opaque or wrong.

Several of the stock converters emit tensor-expression functions (``Clip``, ``Pad``, ``Tile``) or stack their inputs
(``Sum``); no later pass can see through those. These emit plain Relax operators instead.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from tvm import relax
from tvm.relax import Expr
from tvm.relax.frontend.onnx import onnx_frontend

from layoutsel.model import import_activations, import_einsum, import_indices, import_resize
from layoutsel.model.import_padding import resolve_auto_pad, resolve_output_shape, static_shape
from layoutsel.model.import_pooling import lp_pooling, pooling
from layoutsel.model.import_reductions import log_sum_exp
from layoutsel.model.import_support import Converter, array_of, constant, stock
from tvm_passes.errors import UnsupportedModel
from tvm_passes.operators import find_onnx


def has_converter(op_type: str, domain: str = "") -> bool:
    """Whether an operator of a domain can be imported."""
    entry = find_onnx(op_type, domain)
    return entry is not None and entry.is_imported


def convert(
    op_type: str,
    builder: relax.BlockBuilder,
    inputs: Sequence[Any],
    attributes: dict[str, Any],
    state: Any,
    opset: int,
) -> Expr:
    """Convert one operator, by our table first and by TVM's otherwise."""
    converter = CONVERTERS.get(op_type) or stock(op_type)
    return converter(builder, inputs, attributes, state, opset)


def _node_name(attributes: Mapping[str, Any]) -> str:
    return attributes["tvm_custom"]["binding"]


def _chain(binary: Callable[[Expr, Expr], Expr]) -> Converter:
    """Several inputs as a chain of a binary operator."""

    def convert(builder, inputs, _attributes, _state, _opset):  # noqa: ANN001, ANN202
        return functools.reduce(lambda left, right: builder.emit(binary(left, right)), inputs)

    return convert


def _mean(builder, inputs, attributes, state, opset) -> Expr:  # noqa: ANN001
    total = _chain(relax.op.add)(builder, inputs, attributes, state, opset)
    return relax.op.divide(total, relax.const(float(len(inputs)), str(total.ty.dtype)))


def _clip(builder, inputs, attributes, state, opset) -> Expr:  # noqa: ANN001
    data = inputs[0]
    if opset >= 11:
        low, high = array_of(inputs[1]), array_of(inputs[2])
        if (inputs[1] is not None and low is None) or (inputs[2] is not None and high is None):
            return _clip_between(builder, data, inputs[1], inputs[2])
        low, high = (None if bound is None else bound.reshape(()) for bound in (low, high))
    else:
        low, high = attributes.get("min"), attributes.get("max")
    least = -np.inf if low is None or np.isnan(low) else low
    most = np.inf if high is None or np.isnan(high) else high
    if not str(data.ty.dtype).startswith("float"):
        return _clip_integers(data, low, high)
    if float(least) == 0.0 and np.isinf(most):
        return relax.op.nn.relu(data)
    if np.isinf(least):
        return relax.op.minimum(data, constant(most, data.ty.dtype))
    if np.isinf(most):
        return relax.op.maximum(data, constant(least, data.ty.dtype))
    return relax.op.clip(data, float(least), float(most))


def _clip_between(
    builder: relax.BlockBuilder, data: Expr, low: Expr | None, high: Expr | None
) -> Expr:
    """Clip to bounds that the model computes."""
    if low is not None:
        data = builder.emit(relax.op.maximum(data, low))
    return data if high is None else relax.op.minimum(data, high)


def _clip_integers(data: Expr, low: Any, high: Any) -> Expr:
    dtype = str(data.ty.dtype)
    if low is not None:
        data = relax.op.maximum(data, constant(low, dtype))
    if high is not None:
        data = relax.op.minimum(data, constant(high, dtype))
    return data


_PAD_MODES = {"constant": "constant", "reflect": "reflect", "edge": "replicate", "wrap": "circular"}


def _pad(_builder, inputs, attributes, _state, opset) -> Expr:  # noqa: ANN001
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


def _tile(builder, inputs, attributes, state, opset) -> Expr:  # noqa: ANN001
    repeats = array_of(inputs[1])
    if repeats is None:
        return stock("Tile")(builder, inputs, attributes, state, opset)
    return relax.op.tile(inputs[0], repeats.tolist())


def _add_bias(builder: relax.BlockBuilder, value: Expr, bias: Expr | None, name: str) -> Expr:
    """`value`, bound under the node's own name, plus a per-channel bias."""
    if bias is None:
        return value
    value = builder.emit(value, name)
    spatial = len(static_shape(value)) - 2
    return relax.op.add(value, relax.op.reshape(bias, [1, -1, *[1] * spatial]))


def _convolution(name: str) -> Converter:
    """Convolution whose anchor keeps the node's name; the bias is an addition after it."""

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


def _gemm(builder, inputs, attributes, state, opset) -> Expr:  # noqa: ANN001
    product = stock("Gemm")(
        builder, onnx_frontend.onnx_input([*inputs[:2], None]), dict(attributes), state, opset
    )
    if inputs[2] is None:
        return product
    bias, beta = inputs[2], attributes.get("beta", 1.0)
    if beta != 1.0:
        bias = relax.op.multiply(bias, relax.const(beta, str(inputs[0].ty.dtype)))
    return relax.op.add(builder.emit(product, _node_name(attributes)), bias)


def _rms_norm(builder, inputs, attributes, _state, _opset) -> Expr:  # noqa: ANN001
    """Spelled out: TVM cannot build its own operator over several axes."""
    data, scale = inputs[0], inputs[1]
    ndim, dtype = len(static_shape(data)), str(data.ty.dtype)
    axes = list(range(attributes.get("axis", -1) % ndim, ndim))
    epsilon = relax.const(attributes.get("epsilon", 1e-5), dtype)
    square = builder.emit(relax.op.mean(relax.op.multiply(data, data), axes, keepdims=True))
    inverse = builder.emit(relax.op.rsqrt(relax.op.add(square, epsilon)))
    return relax.op.multiply(builder.emit(relax.op.multiply(data, inverse)), scale)


def _only(name: str, attribute: str, allowed: tuple[Any, ...], otherwise: Any) -> Converter:
    """Stock converter, for the values of an attribute that it gets right."""

    def convert(builder, inputs, attributes, state, opset) -> Expr:  # noqa: ANN001
        value = attributes.get(attribute, otherwise)
        if value not in allowed:
            raise UnsupportedModel(f"attribute {attribute} is {value!r}; expected {allowed[0]!r}")
        return stock(name)(builder, inputs, attributes, state, opset)

    return convert


def _power(builder, inputs, attributes, state, opset) -> Expr:  # noqa: ANN001
    """Integer powers by way of floats, the only type that TVM has them for."""
    base, exponent = inputs[0], inputs[1]
    dtype = str(base.ty.dtype)
    if dtype.startswith("float"):
        if str(exponent.ty.dtype) != dtype:
            exponent = builder.emit(relax.op.astype(exponent, dtype))
        return stock("Pow")(
            builder, onnx_frontend.onnx_input([base, exponent]), attributes, state, opset
        )
    wide = [builder.emit(relax.op.astype(value, "float64")) for value in (base, exponent)]
    return relax.op.astype(builder.emit(relax.op.power(*wide)), dtype)


def _hyperbolic(combine: Callable[[Expr, Expr], Expr]) -> Converter:
    """Of e^x and e^-x: TVM's own operators have no code for a CPU."""

    def convert(builder, inputs, _attributes, _state, _opset):  # noqa: ANN001, ANN202
        grown = builder.emit(relax.op.exp(inputs[0]))
        shrunk = builder.emit(relax.op.exp(builder.emit(relax.op.negative(inputs[0]))))
        half = relax.const(0.5, str(inputs[0].ty.dtype))
        return relax.op.multiply(builder.emit(combine(grown, shrunk)), half)

    return convert


def _reshape(builder, inputs, attributes, state, opset) -> Expr:  # noqa: ANN001
    """The shape was an attribute once."""
    if "shape" in attributes:
        shape = constant(attributes.pop("shape"), "int64")
        inputs = onnx_frontend.onnx_input([inputs[0], shape])
    return stock("Reshape")(builder, inputs, attributes, state, opset)


def _cumulative_sum(builder, inputs, attributes, state, opset) -> Expr:  # noqa: ANN001
    """Stock form forwards; backwards between two flips."""
    if not attributes.pop("reverse", 0):
        return stock("CumSum")(builder, inputs, attributes, state, opset)
    axis = array_of(inputs[1])
    if axis is None:
        raise UnsupportedModel("its axis is computed from data; expected a constant")
    flipped = [builder.emit(relax.op.flip(inputs[0], int(axis.item()))), inputs[1]]
    total = stock("CumSum")(builder, onnx_frontend.onnx_input(flipped), attributes, state, opset)
    return relax.op.flip(builder.emit(total), int(axis.item()))


def _is_infinite(builder, inputs, attributes, _state, _opset) -> Expr:  # noqa: ANN001
    data, dtype = inputs[0], str(inputs[0].ty.dtype)
    limits = [
        constant(limit, dtype)
        for limit, name in ((np.inf, "detect_positive"), (-np.inf, "detect_negative"))
        if attributes.get(name, 1)
    ]
    if not limits:
        return relax.op.zeros(static_shape(data), "bool")
    found = [builder.emit(relax.op.equal(data, limit)) for limit in limits]
    return found[0] if len(found) == 1 else relax.op.logical_or(*found)


def _top_k(builder, inputs, attributes, state, opset) -> Expr:  # noqa: ANN001
    """Stock converter, in order: where the model leaves the order open, that is as right as any other."""
    attributes["sorted"] = 1
    return stock("TopK")(builder, inputs, attributes, state, opset)


def _equal(builder, inputs, attributes, state, opset) -> Expr:  # noqa: ANN001
    """Of a tensor with itself, which models ask to find NaN: TVM takes the answer to be known."""
    left, right = inputs[0], inputs[1]
    if left.same_as(right) and str(left.ty.dtype).startswith("float"):
        return relax.op.logical_not(builder.emit(relax.op.isnan(left)))
    return stock("Equal")(builder, inputs, attributes, state, opset)


def _lrn(builder, inputs, attributes, state, opset) -> Expr:  # noqa: ANN001
    """Stock form for odd windows; an even window reaches further after a channel than before it.

    Windows are clipped to the channels that there are; the divisor stays the size that the model states.
    """
    data, size = inputs[0], attributes["size"]
    alpha = attributes.get("alpha", 0.0001) / size
    channels = static_shape(data)[1]
    before, after = (min(side, channels - 1) for side in ((size - 1) // 2, size // 2))
    size = before + 1 + after
    if size % 2:
        attributes.update(size=size, alpha=alpha * size)
        return stock("LRN")(builder, inputs, attributes, state, opset)
    ndim, dtype = len(static_shape(data)), str(data.ty.dtype)
    widths = [0, 0, before, after, *[0, 0] * (ndim - 2)]
    square = builder.emit(relax.op.nn.pad(builder.emit(relax.op.multiply(data, data)), widths))
    windows = [
        builder.emit(relax.op.strided_slice(square, [1], [start], [start + channels]))
        for start in range(size)
    ]
    total = functools.reduce(lambda a, b: builder.emit(relax.op.add(a, b)), windows)
    alpha = relax.const(alpha, dtype)
    bias = relax.const(attributes.get("bias", 1.0), dtype)
    scale = builder.emit(relax.op.add(builder.emit(relax.op.multiply(total, alpha)), bias))
    beta = relax.const(attributes.get("beta", 0.75), dtype)
    return relax.op.divide(data, builder.emit(relax.op.power(scale, beta)))


def _layer_norm(builder, inputs, attributes, state, opset) -> Expr:  # noqa: ANN001
    """Stock converter, and the mean and inverse deviation that it leaves out."""
    if attributes["tvm_custom"]["num_outputs"] == 1:
        return stock("LayerNormalization")(builder, inputs, attributes, state, opset).fields[0]
    data = inputs[0]
    ndim, dtype = len(static_shape(data)), str(data.ty.dtype)
    axes = list(range(attributes.get("axis", -1) % ndim, ndim))
    epsilon = relax.const(attributes.get("epsilon", 1e-5), dtype)
    normal = stock("LayerNormalization")(builder, inputs, dict(attributes), state, opset).fields[0]
    mean = builder.emit(relax.op.mean(data, axes, keepdims=True))
    variance = builder.emit(relax.op.variance(data, axes, keepdims=True))
    inverse = relax.op.rsqrt(builder.emit(relax.op.add(variance, epsilon)))
    return relax.Tuple([builder.emit(normal), mean, builder.emit(inverse)])


CONVERTERS: Mapping[str, Converter] = {
    "AveragePool": pooling("AveragePool"),
    "Clip": _clip,
    "Conv": _convolution("Conv"),
    "ConvTranspose": _convolution("ConvTranspose"),
    "Cosh": _hyperbolic(relax.op.add),
    "CumSum": _cumulative_sum,
    "Einsum": import_einsum.convert,
    "Elu": import_activations.elu,
    "Equal": _equal,
    "Gather": import_indices.gather,
    "GatherElements": import_indices.along_axis("GatherElements"),
    "GatherND": import_indices.coordinates("GatherND"),
    "Gemm": _gemm,
    "HardSigmoid": import_activations.hard_sigmoid,
    "HardSwish": import_activations.hard_swish,
    "IsInf": _is_infinite,
    "LRN": _lrn,
    "LayerNormalization": _layer_norm,
    "LpPool": lp_pooling,
    "Max": _chain(relax.op.maximum),
    "MaxPool": pooling("MaxPool"),
    "Mean": _mean,
    "Min": _chain(relax.op.minimum),
    "OneHot": import_indices.one_hot,
    "Pad": _pad,
    "Pow": _power,
    "RMSNormalization": _rms_norm,
    "ReduceLogSumExp": log_sum_exp,
    "Reshape": _reshape,
    "Resize": import_resize.convert,
    "RoiAlign": _only("RoiAlign", "mode", (b"avg",), b"avg"),
    "ScatterElements": import_indices.along_axis("ScatterElements"),
    "ScatterND": import_indices.coordinates("ScatterND"),
    "Selu": import_activations.selu,
    "Sinh": _hyperbolic(relax.op.subtract),
    "SpaceToDepth": _only("SpaceToDepth", "mode", (b"DCR",), b"DCR"),
    "Sum": _chain(relax.op.add),
    "ThresholdedRelu": import_activations.thresholded_relu,
    "Tile": _tile,
    "TopK": _top_k,
}
