"""Random sub-graphs with the shapes of real networks, as training data for cost models.

A sweep is an ordinary module of many independent sub-graphs. It is imported, partitioned and
measured like any model. Equal seeds give equal sweeps.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import tvm
from tvm import relax

from layoutsel.zoo.sweep import images, products, tokens
from layoutsel.zoo.sweep.draw import Draw, Drawn

Kind = Callable[[Draw], Drawn]
"""Function that draws a sub-graph of one kind."""

KINDS: tuple[tuple[float, Kind], ...] = (
    (0.26, products.convolution),
    (0.10, products.depthwise),
    (0.05, products.grouped),
    (0.03, products.excitation),
    (0.02, products.transposed_convolution),
    (0.05, products.product),
    (0.02, products.pixel_product),
    (0.03, products.batched_product),
    (0.06, images.pooling),
    (0.03, images.global_pooling),
    (0.02, images.upsampling),
    (0.06, images.elementwise),
    (0.04, images.scaling),
    (0.01, images.scaled_residual),
    (0.02, images.gating),
    (0.02, images.response_normalization),
    (0.06, images.concat),
    (0.02, images.shuffle),
    (0.01, images.reshaping),
    (0.01, images.detection_head),
    (0.02, tokens.softmax),
    (0.02, tokens.normalization),
    (0.01, tokens.token_mean),
    (0.02, tokens.permutation),
    (0.02, tokens.splitting),
    (0.01, tokens.joining),
    (0.01, tokens.taking),
    (0.01, tokens.class_token),
)
"""Share and drawing function of each kind of sub-graph."""


def usual(draw: Draw, kind: Kind) -> Drawn:
    """Draw a sub-graph of a kind, again until it is neither tiny nor huge."""
    while not (one := kind(draw)).is_usual:
        pass
    return one


def sweep_module(
    count: int, seed: int = 0, kinds: tuple[tuple[float, Kind], ...] = KINDS
) -> tvm.IRModule:
    """Make a module of `count` independent sub-graphs.

    Parameters
    ----------
    count
        Number of sub-graphs.
    seed
        Seed of the shapes and weights.
    kinds
        Share and drawing function of each kind.
    """
    draw = Draw(seed)
    shares = np.array([share for share, _ in kinds])
    chosen = draw.rng.choice(len(kinds), size=count, p=shares / shares.sum())
    drawn = [usual(draw, kinds[int(kind)][1]) for kind in chosen]
    params = [
        [
            relax.Var(f"x{i}_{j}", relax.TensorType(shape, "float32"))
            for j, shape in enumerate(one.inputs)
        ]
        for i, one in enumerate(drawn)
    ]
    builder = relax.BlockBuilder()
    with builder.function("main", [param for group in params for param in group]):
        with builder.dataflow():
            results = [one.emit(builder, group) for one, group in zip(drawn, params, strict=True)]
            output = builder.emit_output(relax.Tuple(results))
        builder.emit_func_output(output)
    return builder.finalize()
