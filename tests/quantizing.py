"""Quantised ONNX models as ONNX Runtime writes them, random calibration: shared by all tests."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.version_converter
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

_OPSET = 17
"""Per-channel quantisation came with 13."""

KINDS: Mapping[str, Mapping[str, Any]] = {
    "u8": {"activation_type": QuantType.QUInt8, "weight_type": QuantType.QInt8},
    "s8": {"per_channel": True},
    "s8-symmetric": {"per_channel": True, "extra_options": {"ActivationSymmetric": True}},
}
"""Ways of quantising: unsigned activations and one scale for each weight; signed ones and a scale per channel."""


class _RandomImages(CalibrationDataReader):
    def __init__(self, model: onnx.ModelProto, count: int) -> None:
        (value,) = model.graph.input
        shape = [dim.dim_value for dim in value.type.tensor_type.shape.dim]
        rng = np.random.default_rng(0)
        self.feeds: Iterator[dict[str, np.ndarray]] = iter(
            [{value.name: rng.standard_normal(shape).astype("float32")} for _ in range(count)]
        )

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self.feeds, None)


def quantized(model: onnx.ModelProto, kind: str, images: int = 4) -> onnx.ModelProto:
    """`model` with quantisation around its operators, in one of :data:`KINDS`."""
    if model.opset_import[0].version < _OPSET:
        model = onnx.version_converter.convert_version(model, _OPSET)
    with tempfile.TemporaryDirectory() as folder:
        plain, prepared, result = (Path(folder) / f"{name}.onnx" for name in ("f32", "in", "out"))
        onnx.save(model, plain)
        quant_pre_process(plain, prepared, skip_symbolic_shape=True)
        images_ = _RandomImages(onnx.load(prepared), images)
        quantize_static(prepared, result, images_, quant_format=QuantFormat.QDQ, **KINDS[kind])
        return onnx.load(result)


def output_step(model: onnx.ModelProto) -> float:
    """The step in which the only output of a quantised model is quantised."""
    last = next(n for n in model.graph.node if model.graph.output[0].name in n.output)
    assert last.op_type == "DequantizeLinear"
    (scale,) = (t for t in model.graph.initializer if t.name == last.input[1])
    return float(numpy_helper.to_array(scale).reshape(-1)[0])


class NetworkBuilder:
    """Emits ONNX nodes, each named by its output, with seeded random weights."""

    def __init__(self, seed: int = 0) -> None:
        self.rng = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []

    def weight(self, *shape: int) -> str:
        """A weight of a size that keeps results near 1."""
        name = f"w{len(self.weights)}"
        fan_in = max(1, int(np.prod(shape[1:])))
        values = (self.rng.standard_normal(shape) / np.sqrt(fan_in)).astype("float32")
        self.weights.append(numpy_helper.from_array(values, name))
        return name

    def emit(self, operator: str, *inputs: str, **attributes: Any) -> str:
        """A node; its output's name."""
        name = f"{operator.lower()}{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, list(inputs), [name], name, **attributes))
        return name

    def conv(self, x: str, inputs: int, outputs: int, kernel: int = 3, groups: int = 1) -> str:
        """A convolution with bias that keeps height and width."""
        weight = self.weight(outputs, inputs // groups, kernel, kernel)
        pads = [kernel // 2] * 4
        return self.emit("Conv", x, weight, self.weight(outputs), pads=pads, group=groups)

    def model(self, result: str, shape: tuple[int, ...], out: tuple[int, ...]) -> onnx.ModelProto:
        """The model from input ``x`` to `result`."""
        graph = helper.make_graph(
            self.nodes,
            "network",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
            [helper.make_tensor_value_info(result, TensorProto.FLOAT, out)],
            self.weights,
        )
        opsets = [helper.make_opsetid("", _OPSET)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def small_network() -> onnx.ModelProto:
    """Every operator that runs on integers: convolutions, residual sum, max and average pooling, concat, Gemm."""
    b = NetworkBuilder()
    x = b.emit("MaxPool", b.emit("Relu", b.conv("x", 3, 32)), kernel_shape=[2, 2], strides=[2, 2])
    y = b.conv(b.emit("Relu", b.conv(x, 32, 32)), 32, 32, kernel=1)
    x = b.emit("Relu", b.emit("Add", y, x))
    x = b.emit("Concat", b.conv(x, 32, 32, groups=32), x, axis=1)
    x = b.emit("Flatten", b.emit("GlobalAveragePool", x))
    result = b.emit("Gemm", x, b.weight(10, 64), b.weight(10), transB=1)
    return b.model(result, (1, 3, 16, 16), (1, 10))
