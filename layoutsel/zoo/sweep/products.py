"""Random convolutions and matrix products."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from tvm import relax

from layoutsel.zoo.sweep.draw import (
    FLOPS,
    HEADS,
    SIDES,
    TOKENS,
    WIDTH,
    Draw,
    Drawn,
    apply,
    hard_sigmoid,
)
from tvm_passes.ir import Expr


def convolution(draw: Draw) -> Drawn:
    """Dense convolution with any kernel size, with many or few channels."""
    kernel = draw.pick((1, 1, 1, 1, 3, 3, 3, 3, 5, 7))
    return _convolution(draw, draw.channels() if draw.often(0.95) else 3, draw.channels(), kernel)


def depthwise(draw: Draw) -> Drawn:
    """Depthwise convolution."""
    channels = draw.channels(1152)
    return _convolution(draw, channels, channels, draw.pick((3, 3, 5, 7)), channels)


def grouped(draw: Draw) -> Drawn:
    """Grouped convolution with several channels per group."""
    groups = draw.pick((2, 3, 4, 8, 16, 32))
    inputs, outputs = (groups * draw.pick((4, 8, 16, 24, 32, 64)) for _ in range(2))
    return _convolution(draw, inputs, outputs, draw.pick((1, 3, 3)), groups)


def _convolution(draw: Draw, inputs: int, outputs: int, kernel: int, groups: int = 1) -> Drawn:
    side, stride = draw.pick(SIDES), draw.pick((1, 1, 1, 2))
    padding = kernel // 2
    out = (side + 2 * padding - kernel) // stride + 1
    shape, result = (1, inputs, side, side), (1, outputs, out, out)
    weight_shape = (outputs, inputs // groups, kernel, kernel)
    flops = 2.0 * prod(result) * prod(weight_shape[1:])
    usual = all(c == 3 or WIDTH[0] <= c * s <= WIDTH[1] for _, c, _, s in (shape, result))
    # The caller draws again when it sees 0 FLOP; constants for illegal sizes may be huge.
    if not usual or not FLOPS[0] <= flops <= FLOPS[1]:
        return Drawn((shape,), lambda _, values: values[0], flops=0.0)
    tail, more = draw.tail(result)
    weight = draw.constant(*weight_shape)

    def emit(b: relax.BlockBuilder, values: Sequence[Expr]) -> Expr:
        product = relax.op.nn.conv2d(
            values[0], weight, strides=stride, padding=padding, groups=groups
        )
        return tail(b, [b.emit(product), *values[1:]])

    return Drawn((shape,) + (result,) * more, emit, 4 * prod(weight_shape), flops)


def excitation(draw: Draw) -> Drawn:
    """Convolution of squeeze-and-excitation: one pixel, few channels on one side."""
    wide = draw.channels(1280)
    narrow = max(8, 8 * round(wide / draw.pick((4, 4, 16, 24)) / 8))
    inputs, outputs = draw.pick(((wide, narrow), (narrow, wide)))
    weight, bias = draw.constant(outputs, inputs, 1, 1), draw.constant(1, outputs, 1, 1)
    op = relax.op
    activation = draw.pick((apply(op.nn.relu), apply(op.nn.silu), apply(op.sigmoid), hard_sigmoid))

    def emit(b: relax.BlockBuilder, values: Sequence[Expr]) -> Expr:
        product = b.emit(op.nn.conv2d(values[0], weight))
        return activation(b, [b.emit(op.add(product, bias))])

    return Drawn(((1, inputs, 1, 1),), emit, 4 * inputs * outputs)


def transposed_convolution(draw: Draw) -> Drawn:
    """Transposed convolution that doubles height and width, as in decoders."""
    n, c, h, w = draw.image(512)
    outputs = max(c // 2, 8)
    weight, bias = draw.constant(c, outputs, 2, 2), draw.constant(1, outputs, 1, 1)

    def emit(b: relax.BlockBuilder, values: Sequence[Expr]) -> Expr:
        larger = relax.op.nn.conv2d_transpose(values[0], weight, strides=(2, 2))
        return b.emit(relax.op.add(b.emit(larger), bias))

    return Drawn(((n, c, h, w),), emit, 16 * c * outputs, 8.0 * c * outputs * h * w)


def product(draw: Draw) -> Drawn:
    """Linear layer over one row or over tokens."""
    rows = 1 if draw.often(0.25) else draw.pick(TOKENS)
    depth, columns = draw.channels(4096), draw.channels(4096)
    shape = (1, rows, depth) if rows > 1 else (1, depth)
    return _linear(draw, shape, columns)


def pixel_product(draw: Draw) -> Drawn:
    """Linear layer over the channels of an NHWC image, as in ConvNeXt."""
    side, depth, columns = draw.pick((7, 14, 28, 56)), draw.channels(1024), draw.channels(2048)
    return _linear(draw, (1, side, side, depth), columns)


def _linear(draw: Draw, shape: tuple[int, ...], columns: int) -> Drawn:
    depth, result = shape[-1], (*shape[:-1], columns)
    weight = draw.constant(depth, columns)
    flops = 2.0 * prod(result) * depth
    if len(shape) == 4:  # NHWC: its bias is not that of a feature map
        bias, op = draw.constant(columns), relax.op
        activation = draw.pick((None, op.nn.gelu))

        def emit_pixels(b: relax.BlockBuilder, values: Sequence[Expr]) -> Expr:
            shifted = b.emit(op.add(b.emit(op.matmul(values[0], weight)), bias))
            return b.emit(activation(shifted)) if activation else shifted

        return Drawn((shape,), emit_pixels, 4 * depth * columns, flops)
    tail, more = draw.tail(result)

    def emit(b: relax.BlockBuilder, values: Sequence[Expr]) -> Expr:
        return tail(b, [b.emit(relax.op.matmul(values[0], weight)), *values[1:]])

    return Drawn((shape,) + (result,) * more, emit, 4 * depth * columns, flops)


def batched_product(draw: Draw) -> Drawn:
    """Product of attention: queries with keys, perhaps scaled, or weights with values."""
    heads, tokens, depth = draw.pick(HEADS), draw.pick(TOKENS), draw.pick((32, 64))
    flops = 2.0 * heads * tokens * tokens * depth
    if draw.often(0.5):
        return Drawn(
            ((1, heads, tokens, tokens), (1, heads, tokens, depth)),
            apply(relax.op.matmul),
            flops=flops,
        )
    keys = ((1, heads, tokens, depth), (1, heads, depth, tokens))
    if draw.often(0.4):
        return Drawn(keys, apply(relax.op.matmul), flops=flops)
    scale, is_masked = relax.const(depth**0.5, "float32"), draw.often(0.5)

    def emit(b: relax.BlockBuilder, values: Sequence[Expr]) -> Expr:
        scaled = b.emit(relax.op.divide(b.emit(relax.op.matmul(*values[:2])), scale))
        return b.emit(relax.op.add(scaled, values[2])) if is_masked else scaled

    return Drawn((*keys, (1, 1, 1, tokens)) if is_masked else keys, emit, flops=flops)
