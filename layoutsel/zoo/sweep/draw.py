"""Random shapes, constants and tails of sub-graphs, as in real networks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from typing import TypeVar

import numpy as np
from tvm import relax

from tvm_passes.ir import Expr

_CHANNELS = (
    *(16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 120, 128, 144, 160, 192, 224, 240, 256, 288, 320),
    *(384, 448, 480, 512, 576, 640, 672, 768, 832, 960, 1024, 1152, 1280, 1536, 2048),
)
"""Numbers of channels."""
SIDES = (
    *(7, 8, 10, 13, 14, 14, 16, 17, 20, 24, 26, 27, 28, 28, 32, 35, 40, 48, 52, 56, 56, 64, 80),
    *(104, 112, 128, 160, 224),
)
"""Sides of feature maps, pixels."""
TOKENS = (16, 49, 50, 64, 128, 128, 196, 197, 256, 384)
"""Numbers of tokens to choose from; a repeated one is drawn more often."""
HEADS = (3, 6, 8, 12)
"""Numbers of attention heads."""
FLOPS = (1e5, 2.5e9)
"""Smallest and largest number of floating-point operations of a product."""
WIDTH = (600, 32_000)
"""Smallest and largest product of channels and side; small images have many channels."""
MOST_BYTES = 24 << 20
"""Largest size of the weights and of each input; results may be several times as large."""

Emit = Callable[[relax.BlockBuilder, Sequence[Expr]], Expr]
"""Function that emits operators over the inputs and returns the result."""
Operator = Callable[..., Expr]
"""Function that makes a call of a Relax operator, such as ``relax.op.add``."""
_Choice = TypeVar("_Choice")


@dataclass(frozen=True)
class Drawn:
    """One random sub-graph."""

    inputs: tuple[tuple[int, ...], ...]
    """Shapes of the inputs."""
    emit: Emit
    """Function that emits the operators."""
    weight_bytes: int = 0
    """Size of the weights, bytes."""
    flops: float = FLOPS[0]
    """Floating-point operations of a product; other sub-graphs keep the minimum."""

    @property
    def is_usual(self) -> bool:
        """True if the sub-graph is neither tiny nor huge."""
        largest = max(4 * prod(shape) for shape in self.inputs)
        return FLOPS[0] <= self.flops <= FLOPS[1] and max(largest, self.weight_bytes) <= MOST_BYTES


def apply(operator: Operator, *arguments: object, **options: object) -> Emit:
    """Function that emits one operator over all inputs."""
    return lambda b, values: b.emit(operator(*values, *arguments, **options))


class Draw:
    """Source of random shapes, choices and constants.

    Parameters
    ----------
    seed
        Seed of the generator.
    """

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)

    def pick(self, choices: Sequence[_Choice]) -> _Choice:
        """Draw one of `choices` with equal probability."""
        return choices[int(self.rng.integers(len(choices)))]

    def often(self, share: float) -> bool:
        """True in `share` of all draws."""
        return bool(self.rng.random() < share)

    def channels(self, most: int = 2048) -> int:
        """Number of channels of a network, or any multiple of eight."""
        if self.often(0.7):
            return self.pick([c for c in _CHANNELS if c <= most])
        return 8 * round(float(np.exp(self.rng.uniform(0, np.log(most / 8)))))

    def image(self, most: int = 1024) -> tuple[int, int, int, int]:
        """Shape of a feature map with at most `most` channels."""
        while True:
            side = self.pick(SIDES)
            shape = (1, self.channels(most), side, side)
            if 5e3 <= prod(shape) <= 2.5e6:
                return shape

    def constant(self, *shape: int) -> Expr:
        """Constant of random weights."""
        return relax.const(self.rng.standard_normal(shape, dtype=np.float32) * np.float32(0.1))

    def per_channel(self, shape: Sequence[int]) -> Expr:
        """Weights to scale or shift the channels of a feature map, or the features of tokens."""
        return self.constant(*((1, shape[1], 1, 1) if len(shape) == 4 else (shape[-1],)))

    def tail(self, shape: tuple[int, ...]) -> tuple[Emit, int]:
        """Operators after a product of `shape`, and their number of further inputs."""
        bias = self.per_channel(shape)
        weights = np.array([weight for weight, _, _ in _TAILS])
        chosen = int(self.rng.choice(len(_TAILS), p=weights / weights.sum()))
        _, activation, reads = _TAILS[chosen]

        def emit(b: relax.BlockBuilder, values: Sequence[Expr]) -> Expr:
            return activation(b, [b.emit(relax.op.add(values[0], bias)), *values[1:]])

        return (activation if activation is _bare else emit), reads


def hard_sigmoid(b: relax.BlockBuilder, values: Sequence[Expr]) -> Expr:
    """Hard sigmoid as ONNX's operator is imported."""
    sixth, half = relax.const(1 / 6, "float32"), relax.const(0.5, "float32")
    line = b.emit(relax.op.add(b.emit(relax.op.multiply(values[0], sixth)), half))
    return b.emit(relax.op.clip(line, 0.0, 1.0))


def hard_swish(b: relax.BlockBuilder, values: Sequence[Expr]) -> Expr:
    """Hard swish as ONNX's operator is imported."""
    return b.emit(relax.op.multiply(values[0], hard_sigmoid(b, values)))


def hard_swish_of_six(b: relax.BlockBuilder, values: Sequence[Expr]) -> Expr:
    """Hard swish as written by exporters that lack the operator."""
    shifted = b.emit(relax.op.add(values[0], relax.const(3.0, "float32")))
    gate = b.emit(
        relax.op.multiply(b.emit(relax.op.clip(shifted, 0, 6)), relax.const(1 / 6, "float32"))
    )
    return b.emit(relax.op.multiply(values[0], gate))


def _bare(_b: relax.BlockBuilder, values: Sequence[Expr]) -> Expr:
    """No bias and no activation."""
    return values[0]


def _biased(_b: relax.BlockBuilder, values: Sequence[Expr]) -> Expr:
    """Bias without an activation."""
    return values[0]


def _residual_relu(b: relax.BlockBuilder, values: Sequence[Expr]) -> Expr:
    return b.emit(relax.op.nn.relu(b.emit(relax.op.add(*values))))


def _silu_residual(b: relax.BlockBuilder, values: Sequence[Expr]) -> Expr:
    return b.emit(relax.op.add(b.emit(relax.op.nn.silu(values[0])), values[1]))


_TAILS: tuple[tuple[float, Emit, int], ...] = (
    (0.26, apply(relax.op.nn.relu), 0),
    (0.17, _biased, 0),
    (0.06, _bare, 0),
    (0.08, apply(relax.op.clip, 0, 6), 0),
    (0.11, apply(relax.op.nn.silu), 0),
    (0.05, apply(relax.op.nn.gelu), 0),
    (0.03, apply(relax.op.sigmoid), 0),
    (0.06, hard_swish, 0),
    (0.07, apply(relax.op.add), 1),
    (0.09, _residual_relu, 1),
    (0.02, _silu_residual, 1),
)
"""Share, operators after the bias, and number of further inputs."""
