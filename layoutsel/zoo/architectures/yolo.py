"""A one-stage detector: CSP backbone, feature pyramid, three heads with three anchors each."""

from __future__ import annotations

import numpy as np

from layoutsel.zoo.architectures.builder import NetworkBuilder, TensorRef, ints
from layoutsel.zoo.architectures.layers import conv, conv_norm, sigmoid, silu

_SIDE = 320
"""Side of the image, pixels."""
_ANCHORS = 3
"""Number of anchors per pixel."""
_FIELDS = 85
"""Values of a prediction: box, objectness and 80 classes."""
_DOWN = 2
"""Stride of the convolutions between two levels."""


def yolo_tiny(g: NetworkBuilder) -> None:
    """YOLOv5n (Ultralytics, release 7.0) without the decoding of boxes."""
    x = conv_norm(g, g.input("image", (1, 3, _SIDE, _SIDE)), 16, 6, _DOWN, act=silu)
    levels = []
    for width, count in ((32, 1), (64, 2), (128, 3), (256, 1)):
        x = _csp(g, conv_norm(g, x, width, 3, _DOWN, act=silu), width, count)
        levels.append(x)
    _, fine, middle, _ = levels
    coarse_top = conv_norm(g, _pyramid_pooling(g, x), 128, act=silu)
    middle_top = _csp(g, _concat(g, _upsampled(g, coarse_top), middle), 128, shortcut=False)
    middle_top = conv_norm(g, middle_top, 64, act=silu)
    fine = _csp(g, _concat(g, _upsampled(g, middle_top), fine), 64, shortcut=False)
    middle = _concat(g, conv_norm(g, fine, 64, 3, _DOWN, act=silu), middle_top)
    middle = _csp(g, middle, 128, shortcut=False)
    coarse = _concat(g, conv_norm(g, middle, 128, 3, _DOWN, act=silu), coarse_top)
    coarse = _csp(g, coarse, 256, shortcut=False)
    sides = (_SIDE // 8, _SIDE // 16, _SIDE // 32)
    heads = [_head(g, x, side) for x, side in zip((fine, middle, coarse), sides, strict=True)]
    boxes = sum(_ANCHORS * side**2 for side in sides)
    g.output(g.op("Concat", *heads, axis=1), (1, boxes, _FIELDS))


def _csp(
    g: NetworkBuilder, x: TensorRef, channels: int, count: int = 1, *, shortcut: bool = True
) -> TensorRef:
    """Cross-stage partial block, half of it through bottlenecks (Wang et al., 2020)."""
    half = channels // 2
    deep = conv_norm(g, x, half, act=silu)
    for _ in range(count):
        y = conv_norm(g, conv_norm(g, deep, half, act=silu), half, 3, act=silu)
        deep = g.op("Add", deep, y) if shortcut else y
    return conv_norm(g, _concat(g, deep, conv_norm(g, x, half, act=silu)), channels, act=silu)


def _pyramid_pooling(g: NetworkBuilder, x: TensorRef) -> TensorRef:
    """Concatenation of maxima over windows of 5, 9 and 13 pixels."""
    pools = [conv_norm(g, x, x.channels // 2, act=silu)]
    for _ in range(3):
        pools.append(g.op("MaxPool", pools[-1], kernel_shape=[5, 5], strides=[1, 1], pads=[2] * 4))
    return conv_norm(g, _concat(g, *pools), x.channels, act=silu)


def _concat(g: NetworkBuilder, *values: TensorRef) -> TensorRef:
    return g.op("Concat", *values, channels=sum(value.channels for value in values), axis=1)


def _upsampled(g: NetworkBuilder, x: TensorRef) -> TensorRef:
    scales = np.array([1, 1, 2, 2], np.float32)
    return g.op(
        "Resize", x, None, scales, mode="nearest", nearest_mode="floor",
        coordinate_transformation_mode="asymmetric",
    )  # fmt: skip


def _head(g: NetworkBuilder, x: TensorRef, side: int) -> TensorRef:
    """Predictions for each anchor and pixel, one per row."""
    y = conv(g, x, _ANCHORS * _FIELDS, gain=1)
    y = g.op("Reshape", y, ints(1, _ANCHORS, _FIELDS, side, side))
    y = sigmoid(g, g.op("Transpose", y, perm=[0, 1, 3, 4, 2]))
    return g.op("Reshape", y, ints(1, _ANCHORS * side**2, _FIELDS))
