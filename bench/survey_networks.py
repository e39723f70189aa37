"""Networks that nobody tuned for, with the operators of current architectures: written node by node, at small sizes."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from onnx import ModelProto

from layoutsel.zoo.architectures.builder import NetworkBuilder, TensorRef, ints


def _conv(
    g: NetworkBuilder, x: TensorRef, out: int, kernel: list[int], **attributes: object
) -> TensorRef:
    groups = int(attributes.get("group", 1))
    weight = (out, x.channels // groups, *kernel)
    return g.op("Conv", x, weight, (out,), channels=out, kernel_shape=kernel, **attributes)


def _relu(g: NetworkBuilder, x: TensorRef) -> TensorRef:
    return g.op("Relu", x)


def swin(g: NetworkBuilder) -> None:
    """Attention in windows of 4×4, shifted between two blocks, with a relative bias."""
    side, window, width, heads = 16, 4, 64, 4
    x = g.input("tokens", (1, width, side, side))
    x = g.op("Transpose", x, perm=[0, 2, 3, 1], channels=width)
    tokens, windows = window * window, (side // window) ** 2
    for shift in (0, window // 2):
        normal = g.op("LayerNormalization", x, (width,), (width,), axis=-1)
        if shift:
            parts = [
                g.op("Slice", normal, ints(shift), ints(side), ints(1)),
                g.op("Slice", normal, ints(0), ints(shift), ints(1)),
            ]
            normal = g.op("Concat", *parts, axis=1)
        split = g.op(
            "Reshape", normal, ints(1, side // window, window, side // window, window, width)
        )
        flat = g.op("Transpose", split, perm=[0, 1, 3, 2, 4, 5])
        flat = g.op("Reshape", flat, ints(windows, tokens, width), channels=width)
        q, k, v = (
            g.op(
                "Transpose",
                g.op(
                    "Reshape",
                    g.op("MatMul", flat, (width, width)),
                    ints(windows, tokens, heads, width // heads),
                ),
                perm=[0, 2, 1, 3],
            )
            for _ in range(3)
        )
        scores = g.op("MatMul", q, g.op("Transpose", k, perm=[0, 1, 3, 2]))
        scores = g.op("Mul", scores, 0.25)
        scores = g.op("Add", scores, (1, heads, tokens, tokens))
        mixed = g.op("MatMul", g.op("Softmax", scores, axis=-1), v)
        mixed = g.op(
            "Reshape", g.op("Transpose", mixed, perm=[0, 2, 1, 3]), ints(windows, tokens, width)
        )
        mixed = g.op("MatMul", mixed, (width, width), channels=width)
        back = g.op(
            "Reshape", mixed, ints(1, side // window, side // window, window, window, width)
        )
        back = g.op("Transpose", back, perm=[0, 1, 3, 2, 4, 5])
        x = g.op("Add", x, g.op("Reshape", back, ints(1, side, side, width), channels=width))
        hidden = g.op("MatMul", x, (width, 4 * width), channels=4 * width)
        half = g.op("Mul", hidden, 0.5)
        erf = g.op("Erf", g.op("Mul", hidden, float(np.sqrt(0.5))))
        hidden = g.op("Mul", half, g.op("Add", erf, 1.0))
        x = g.op("Add", x, g.op("MatMul", hidden, (4 * width, width), channels=width))
    g.output(x, (1, side, side, width))


def squeeze_excite(g: NetworkBuilder) -> None:
    """Depthwise and pointwise convolutions with squeeze and excitation."""
    x = g.input("image", (1, 3, 64, 64))
    x = _conv(g, x, 32, [3, 3], strides=[2, 2], pads=[1] * 4)
    for _ in range(3):
        wide = g.op("Mul", h := _conv(g, x, 96, [1, 1]), g.op("Sigmoid", h))
        wide = _conv(g, wide, 96, [5, 5], pads=[2] * 4, group=96)
        pooled = g.op("GlobalAveragePool", wide)
        gate = g.op("Sigmoid", _conv(g, _relu(g, _conv(g, pooled, 8, [1, 1])), 96, [1, 1]))
        x = g.op("Add", x, _conv(g, g.op("Mul", wide, gate), 32, [1, 1]))
    g.output(x, (1, 32, 32, 32))


def detector(g: NetworkBuilder) -> None:
    """A pyramid with upsampling, concatenation, spatial pooling and boxes decoded per cell."""
    x = g.input("image", (1, 3, 64, 64))
    c2 = _relu(g, _conv(g, x, 32, [3, 3], strides=[2, 2], pads=[1] * 4))
    c3 = _relu(g, _conv(g, c2, 64, [3, 3], strides=[2, 2], pads=[1] * 4))
    pools = [g.op("MaxPool", c3, kernel_shape=[k, k], pads=[k // 2] * 4) for k in (5, 9, 13)]
    c3 = _conv(g, g.op("Concat", c3, *pools, axis=1, channels=256), 64, [1, 1])
    up = g.op(
        "Resize", c3, None, np.array([1, 1, 2, 2], np.float32), mode="nearest",
        coordinate_transformation_mode="asymmetric", nearest_mode="floor",
    )  # fmt: skip
    joined = _conv(g, g.op("Concat", up, c2, axis=1, channels=96), 64, [3, 3], pads=[1] * 4)
    head = g.op("Sigmoid", _conv(g, joined, 3 * 8, [1, 1]))
    boxes = g.op("Reshape", head, ints(1, 3, 8, 32 * 32))
    g.output(g.op("Transpose", boxes, perm=[0, 1, 3, 2]), (1, 3, 1024, 8))


def unet_transposed(g: NetworkBuilder) -> None:
    """Encoder and decoder with transposed convolutions of overlapping windows."""
    x = g.input("image", (1, 3, 64, 64))
    first = _relu(g, _conv(g, x, 16, [3, 3], pads=[1] * 4))
    deep = g.op("MaxPool", first, kernel_shape=[2, 2], strides=[2, 2])
    deep = _relu(g, _conv(g, deep, 32, [3, 3], pads=[1] * 4))
    up = g.op(
        "ConvTranspose", deep, (32, 16, 4, 4), (16,), channels=16, kernel_shape=[4, 4],
        strides=[2, 2], pads=[1] * 4,
    )  # fmt: skip
    both = g.op("Concat", up, first, axis=1, channels=32)
    g.output(_conv(g, both, 1, [1, 1]), (1, 1, 64, 64))


def volumes(g: NetworkBuilder) -> None:
    """Convolutions and poolings in three dimensions."""
    x = g.input("volume", (1, 2, 16, 16, 16))
    x = _relu(g, _conv(g, x, 16, [3, 3, 3], pads=[1] * 6))
    x = g.op("MaxPool", x, kernel_shape=[2, 2, 2], strides=[2, 2, 2])
    x = _relu(g, _conv(g, x, 32, [3, 3, 3], pads=[1] * 6))
    g.output(g.op("GlobalAveragePool", x), (1, 32, 1, 1, 1))


def audio(g: NetworkBuilder) -> None:
    """Dilated convolutions over time, with gates."""
    x = g.input("wave", (1, 32, 512))
    for dilation in (1, 2, 4):
        pads = [dilation, dilation]
        left = g.op("Tanh", _conv(g, x, 32, [3], pads=pads, dilations=[dilation]))
        right = g.op("Sigmoid", _conv(g, x, 32, [3], pads=pads, dilations=[dilation]))
        x = g.op("Add", x, _conv(g, g.op("Mul", left, right), 32, [1]))
    pooled = g.op("AveragePool", x, kernel_shape=[4], strides=[4])
    g.output(pooled, (1, 32, 128))


def vocoder(g: NetworkBuilder) -> None:
    """Upsampling of a spectrogram by transposed convolutions over time."""
    x = _conv(g, g.input("mel", (1, 40, 32)), 64, [7], pads=[3, 3])
    for width, stride in ((32, 8), (16, 4)):
        x = g.op("LeakyRelu", x, alpha=0.1)
        x = g.op(
            "ConvTranspose", x, (x.channels, width, 2 * stride), (width,), channels=width,
            kernel_shape=[2 * stride], strides=[stride], pads=[stride // 2] * 2,
        )  # fmt: skip
        x = g.op("Add", x, _conv(g, g.op("LeakyRelu", x, alpha=0.1), width, [3], pads=[1, 1]))
    g.output(g.op("Tanh", _conv(g, x, 1, [7], pads=[3, 3])), (1, 1, 1024))


def group_normalised(g: NetworkBuilder) -> None:
    """Group normalisation, as exporters spell it, between grouped convolutions with a shuffle."""
    x = _conv(g, g.input("image", (1, 3, 32, 32)), 32, [3, 3], pads=[1] * 4)
    for _ in range(2):
        flat = g.op("Reshape", x, ints(1, 8, -1))
        normal = g.op(
            "InstanceNormalization", flat, np.ones(8, np.float32), np.zeros(8, np.float32)
        )
        x = g.op("Reshape", normal, ints(1, 32, 32, 32), channels=32)
        x = _relu(g, g.op("Add", g.op("Mul", x, (32, 1, 1)), (32, 1, 1)))
        x = _conv(g, x, 32, [3, 3], pads=[1] * 4, group=4)
        mixed = g.op("Transpose", g.op("Reshape", x, ints(1, 4, 8, 32, 32)), perm=[0, 2, 1, 3, 4])
        x = g.op("Reshape", mixed, ints(1, 32, 32, 32), channels=32)
    g.output(x, (1, 32, 32, 32))


def weight_standardised(g: NetworkBuilder) -> None:
    """Weights standardised by a batch normalisation in training mode, as exporters write it."""
    x = g.input("image", (1, 16, 32, 32))
    rng = np.random.default_rng(0)
    for _ in range(2):
        weight = rng.standard_normal((1, 16, 16 * 9)).astype(np.float32)
        ones, zeros = np.ones(16, np.float32), np.zeros(16, np.float32)
        anchor = TensorRef(x.name, 16)
        flat = g.op("Identity", weight, channels=16)
        normal = g.op(
            "BatchNormalization", flat, np.full(16, 0.1, np.float32), zeros, zeros, ones,
            training_mode=1,
        )  # fmt: skip
        filters = g.op("Reshape", normal, ints(16, 16, 3, 3))
        x = _relu(g, g.op("Conv", anchor, filters, channels=16, kernel_shape=[3, 3], pads=[1] * 4))
    pooled = g.op(
        "AveragePool", x, kernel_shape=[640, 640], strides=[640, 640], ceil_mode=1,
        count_include_pad=1,
    )  # fmt: skip
    g.output(pooled, (1, 16, 1, 1))


NETWORKS: Mapping[str, Callable[[NetworkBuilder], None]] = {
    "audio": audio,
    "detector": detector,
    "group_normalised": group_normalised,
    "squeeze_excite": squeeze_excite,
    "swin": swin,
    "unet_transposed": unet_transposed,
    "vocoder": vocoder,
    "volumes": volumes,
    "weight_standardised": weight_standardised,
}
"""What writes the network of a name."""


def network(name: str) -> ModelProto:
    """Build a network of :data:`NETWORKS`."""
    graph = NetworkBuilder(name)
    NETWORKS[name](graph)
    model = graph.model()
    for node in model.graph.node:
        if node.op_type == "BatchNormalization":
            node.output.extend([f"{node.name}_mean", f"{node.name}_variance"])
    return model
