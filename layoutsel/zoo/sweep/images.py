"""Random operators on feature maps, other than convolutions."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from tvm import relax

from layoutsel.zoo.sweep.draw import Draw, Drawn, Emit, apply, hard_swish, hard_swish_of_six
from tvm_passes.ir import Expr

_RESIZES = (
    ("nearest_neighbor", "asymmetric"),
    ("nearest_neighbor", "asymmetric"),
    ("linear", "half_pixel"),
    ("linear", "align_corners"),
)
"""Methods and coordinate transformations of resizing, as in real networks."""


def pooling(draw: Draw) -> Drawn:
    """Pooling over small windows."""
    size, stride = draw.pick((2, 3, 3)), draw.pick((1, 2, 2))
    pool = relax.op.nn.max_pool2d if draw.often(0.6) else relax.op.nn.avg_pool2d
    padding, ceil = draw.pick((0, 1)) if size == 3 else 0, draw.often(0.3)
    return Drawn((draw.image(),), apply(pool, (size, size), stride, padding, ceil_mode=ceil))


def global_pooling(draw: Draw) -> Drawn:
    """Average over all pixels."""
    return Drawn((draw.image(2048),), apply(relax.op.mean, [2, 3], keepdims=True))


def upsampling(draw: Draw) -> Drawn:
    """Resizing to twice the height and width."""
    n, c, h, w = draw.image(512)
    method, positions = draw.pick(_RESIZES)
    twice = apply(
        relax.op.image.resize2d,
        relax.ShapeExpr([2 * h, 2 * w]),
        layout="NCHW",
        method=method,
        coordinate_transformation_mode=positions,
        rounding_method="floor",
    )
    return Drawn(((n, c, h, w),), twice)


def elementwise(draw: Draw) -> Drawn:
    """One or two elementwise operators on images, tokens or a vector of channels."""
    op = relax.op
    shape: tuple[int, ...] = draw.image()
    if draw.often(0.25):
        shape = (1, draw.pick((50, 128, 197, 256)), draw.pick((192, 384, 512, 768)))
    elif draw.often(0.15):
        shape = (1, draw.channels(), 1, 1)
    elif draw.often(0.05):
        shape = (1, 3, *shape[2:], 85)
    choices: tuple[tuple[int, Emit], ...] = (
        (2, apply(op.add)),
        (2, lambda b, v: b.emit(op.nn.relu(b.emit(op.add(*v))))),
        (1, apply(op.nn.relu)),
        (1, apply(op.nn.silu)),
        (1, apply(op.nn.gelu)),
        (1, apply(op.sigmoid)),
        (1, hard_swish),
        (1, hard_swish_of_six),
    )
    count, emit = draw.pick(choices)
    return Drawn((shape,) * count, emit)


def scaling(draw: Draw) -> Drawn:
    """Normalisation by channel that no convolution absorbs, alone or before an activation."""
    shape = draw.image()
    return Drawn((shape,), _normalized(draw, shape))


def _normalized(draw: Draw, shape: Sequence[int]) -> Emit:
    scale, shift = draw.per_channel(shape), draw.per_channel(shape)
    op, length = relax.op, draw.pick((1, 2, 3, 3, 3, 3))

    def emit(b: relax.BlockBuilder, values: Sequence[Expr]) -> Expr:
        result = b.emit(op.multiply(values[0], scale))
        if length > 1:
            result = b.emit(op.add(result, shift))
        return b.emit(op.nn.relu(result)) if length > 2 else result

    return emit


def scaled_residual(draw: Draw) -> Drawn:
    """Residual with a branch scaled by channel, as in ConvNeXt."""
    shape = draw.image()
    scale = draw.per_channel(shape)
    op = relax.op
    return Drawn(
        (shape, shape), lambda b, v: b.emit(op.add(b.emit(op.multiply(v[0], scale)), v[1]))
    )


def gating(draw: Draw) -> Drawn:
    """Multiplication of channels by their gates, the end of squeeze-and-excitation."""
    shape = draw.image(1280)
    return Drawn((shape, (*shape[:2], 1, 1)), apply(relax.op.multiply))


def response_normalization(draw: Draw) -> Drawn:
    """Local response normalisation over channels, as ONNX's operator is imported."""
    op, size = relax.op, draw.pick((3, 5, 5))
    alpha, bias, beta = (relax.const(value, "float32") for value in (1e-4, 1.0, 0.75))

    def emit(b: relax.BlockBuilder, values: Sequence[Expr]) -> Expr:
        square = b.emit(op.expand_dims(b.emit(op.multiply(values[0], values[0])), 1))
        half = size // 2
        average = op.nn.avg_pool3d(
            square, (size, 1, 1), padding=(half, 0, 0, half, 0, 0), count_include_pad=True
        )
        total = b.emit(op.squeeze(b.emit(average), 1))
        scale = b.emit(op.add(b.emit(op.multiply(total, alpha)), bias))
        return b.emit(op.divide(values[0], b.emit(op.power(scale, beta))))

    return Drawn((draw.image(256),), emit)


def concat(draw: Draw) -> Drawn:
    """Concatenation of branches or of a dense block, perhaps with an activation."""
    first = draw.image(896)
    if draw.often(0.4):
        others = [draw.pick((12, 24, 32, 32, 32, 48))]
    else:
        most = max(first[1], 32)
        others = [draw.channels(most) for _ in range(draw.pick((1, 1, 2, 3)))]
    shapes = (first, *((1, channels, *first[2:]) for channels in others))
    joined: Emit = lambda b, values: b.emit(relax.op.concat(list(values), 1))  # noqa: E731
    if draw.often(0.7):
        return Drawn(shapes, joined)
    total = (1, sum(shape[1] for shape in shapes), *first[2:])
    then = _normalized(draw, total) if draw.often(0.5) else apply(relax.op.nn.relu)
    return Drawn(shapes, lambda b, values: then(b, [joined(b, values)]))


def shuffle(draw: Draw) -> Drawn:
    """Shuffling of channels between groups."""
    n, c, h, w = draw.image()
    groups = draw.pick((2, 3, 4, 8))
    c = groups * max(c // groups, 2)
    split, axes = (n, groups, c // groups, h, w), (0, 2, 1, 3, 4)

    def emit(b: relax.BlockBuilder, values: Sequence[Expr]) -> Expr:
        parts = b.emit(relax.op.reshape(values[0], split))
        mixed = b.emit(relax.op.permute_dims(parts, axes))
        return b.emit(relax.op.reshape(mixed, (n, c, h, w)))

    return Drawn(((n, c, h, w),), emit)


def reshaping(draw: Draw) -> Drawn:
    """Reshape that moves no data in a plain layout."""
    shape = (1, draw.channels(), 1, 1) if draw.often(0.4) else draw.image()
    n, c, h, w = shape
    results = ((1, prod(shape)), (n, c, h * w), (n, 1, c, h, w))
    return Drawn((shape,), apply(relax.op.reshape, draw.pick(results)))


def detection_head(draw: Draw) -> Drawn:
    """Move of anchors and their values from the channels to the last axis."""
    anchors, values, side = 3, draw.pick((85, 85, 25)), draw.pick((10, 13, 20, 26, 40, 52))
    split, axes = (1, anchors, values, side, side), (0, 1, 3, 4, 2)

    def emit(b: relax.BlockBuilder, given: Sequence[Expr]) -> Expr:
        parts = b.emit(relax.op.reshape(given[0], split))
        return b.emit(relax.op.permute_dims(parts, axes))

    return Drawn(((1, anchors * values, side, side),), emit)
