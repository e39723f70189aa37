"""Random operators on tokens, other than products."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from tvm import relax

from layoutsel.zoo.sweep.draw import HEADS, TOKENS, Draw, Drawn, apply
from tvm_passes.ir import Expr

_WIDTHS = (96, 192, 384, 512, 768, 1024)
"""Numbers of features."""


def softmax(draw: Draw) -> Drawn:
    """Softmax of attention scores, or over classes."""
    tokens = draw.pick(TOKENS)
    classes = int(np.exp(draw.rng.uniform(np.log(10), np.log(22_000))))
    shape = (1, draw.pick(HEADS), tokens, tokens) if draw.often(0.5) else (1, classes)
    return Drawn((shape,), apply(relax.op.nn.softmax, -1))


def normalization(draw: Draw) -> Drawn:
    """Layer normalisation over the features of tokens or of NHWC pixels."""
    width, side = draw.pick(_WIDTHS), draw.pick((1, 7, 14, 28, 56))
    shape = (1, draw.pick(TOKENS), width) if draw.often(0.6) else (1, side, side, width)
    scale, shift = draw.constant(width), draw.constant(width)
    return Drawn((shape,), apply(relax.op.nn.layer_norm, scale, shift, [-1]))


def token_mean(draw: Draw) -> Drawn:
    """Mean over all tokens."""
    return Drawn(((1, draw.pick(TOKENS), draw.channels(1024)),), apply(relax.op.mean, [1]))


def permutation(draw: Draw) -> Drawn:
    """Permutation of tokens and features, of heads, or between NCHW and NHWC."""
    n, c, h, w = draw.image()
    heads, tokens, depth = draw.pick(HEADS), draw.pick(TOKENS), draw.pick((32, 64))
    shape, axes = draw.pick(
        (
            ((n, c, h, w), (0, 2, 3, 1)),
            ((n, h, w, c), (0, 3, 1, 2)),
            ((n, h * w, c), (0, 2, 1)),
            ((1, tokens, heads, depth), (0, 2, 1, 3)),
            ((1, heads, tokens, depth), (0, 1, 3, 2)),
        )
    )
    return Drawn((shape,), apply(relax.op.permute_dims, axes))


def splitting(draw: Draw) -> Drawn:
    """Split of features into heads or into queries, keys and values, or of images into tokens."""
    heads, tokens, depth = draw.pick(HEADS), draw.pick(TOKENS), draw.pick((32, 64))
    n, c, h, w = draw.image(768)
    width = heads * depth
    shape, parts, axes = draw.pick(
        (
            ((1, tokens, width), (1, tokens, heads, depth), (0, 2, 1, 3)),
            ((1, tokens, width), (1, tokens, heads, depth), (0, 2, 3, 1)),
            ((1, tokens, 3 * width), (1, tokens, 3, heads, depth), (2, 0, 3, 1, 4)),
            ((n, c, h, w), (n, c, h * w), (0, 2, 1)),
        )
    )

    def emit(b: relax.BlockBuilder, values: Sequence[Expr]) -> Expr:
        split = b.emit(relax.op.reshape(values[0], parts))
        return b.emit(relax.op.permute_dims(split, axes))

    return Drawn((shape,), emit)


def joining(draw: Draw) -> Drawn:
    """Join of heads into features, or of tokens into an image."""
    heads, tokens, depth = draw.pick(HEADS), draw.pick(TOKENS), draw.pick((32, 64))
    n, c, h, w = draw.image(768)
    shape, axes, result = draw.pick(
        (
            ((1, heads, tokens, depth), (0, 2, 1, 3), (1, tokens, heads * depth)),
            ((n, h * w, c), (0, 2, 1), (n, c, h, w)),
        )
    )

    def emit(b: relax.BlockBuilder, values: Sequence[Expr]) -> Expr:
        permuted = b.emit(relax.op.permute_dims(values[0], axes))
        return b.emit(relax.op.reshape(permuted, result))

    return Drawn((shape,), emit)


def taking(draw: Draw) -> Drawn:
    """Selection of the queries, keys or values, or of one token."""
    heads, tokens, depth = draw.pick(HEADS), draw.pick(TOKENS), draw.pick((32, 64))
    index = relax.const(np.array(draw.pick((0, 1, 2)), "int64"))
    if draw.often(0.6):
        return Drawn(((3, 1, heads, tokens, depth),), apply(relax.op.take, index, 0, mode="clip"))
    return Drawn(((1, tokens, heads * depth),), apply(relax.op.take, index, 1, mode="clip"))


def class_token(draw: Draw) -> Drawn:
    """Concatenation of a class token with the others, perhaps with positions added."""
    tokens, width = draw.pick(TOKENS), draw.pick(_WIDTHS)
    token, positions = draw.constant(1, 1, width), draw.constant(1, tokens + 1, width)

    def emit(b: relax.BlockBuilder, values: Sequence[Expr]) -> Expr:
        joined = b.emit(relax.op.concat([token, values[0]], 1))
        return b.emit(relax.op.add(joined, positions))

    return Drawn(((1, tokens, width),), emit)
