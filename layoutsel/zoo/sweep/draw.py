"""What the kinds of sub-graphs are drawn with: extents that real networks use, constants, tails."""

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
SIDES = (
    *(7, 8, 10, 13, 14, 14, 16, 17, 20, 24, 26, 27, 28, 28, 32, 35, 40, 48, 52, 56, 56, 64, 80),
    *(104, 112, 128, 160, 224),
)
TOKENS = (16, 49, 50, 64, 128, 128, 196, 197, 256, 384)
HEADS = (3, 6, 8, 12)
FLOPS = (1e5, 2.5e9)
WIDTH = (600, 32_000)
"""Channels times side: networks have many channels where images are small."""
MOST_BYTES = 24 << 20
"""Of the weights, and of each input; concatenating and up-sampling give several times that."""

Emit = Callable[[relax.BlockBuilder, Sequence[Expr]], Expr]
"""Emits operators over the inputs; returns the result."""
Operator = Callable[..., Expr]
_Choice = TypeVar("_Choice")


@dataclass(frozen=True)
class Drawn:
    """One sub-graph."""

    inputs: tuple[tuple[int, ...], ...]
    emit: Emit
    weight_bytes: int = 0
    flops: float = FLOPS[0]
    """Of products and convolutions; others do as they are."""

    @property
    def is_usual(self) -> bool:
        """True if it is neither tiny nor huge."""
        largest = max(4 * prod(shape) for shape in self.inputs)
        return FLOPS[0] <= self.flops <= FLOPS[1] and max(largest, self.weight_bytes) <= MOST_BYTES


def apply(operator: Operator, *arguments: object, **options: object) -> Emit:
    """One operator over all inputs."""
    return lambda b, values: b.emit(operator(*values, *arguments, **options))


class Draw:
    """Draws extents and constants; one per generator state."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)

    def pick(self, choices: Sequence[_Choice]) -> _Choice:
        """One of them, all equally often."""
        return choices[int(self.rng.integers(len(choices)))]

    def often(self, share: float) -> bool:
        """True in `share` of all draws."""
        return bool(self.rng.random() < share)

    def channels(self, most: int = 2048) -> int:
        """What networks use, or any multiple of eight."""
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
        """Random weights."""
        return relax.const(self.rng.standard_normal(shape, dtype=np.float32) * np.float32(0.1))

    def per_channel(self, shape: Sequence[int]) -> Expr:
        """Weights that a feature map's channels, or tokens' features, are scaled or shifted by."""
        return self.constant(*((1, shape[1], 1, 1) if len(shape) == 4 else (shape[-1],)))

    def tail(self, shape: tuple[int, ...]) -> tuple[Emit, int]:
        """What follows a product of `shape`, and how many further inputs of that shape it reads."""
        bias = self.per_channel(shape)
        weights = np.array([weight for weight, _, _ in _TAILS])
        chosen = int(self.rng.choice(len(_TAILS), p=weights / weights.sum()))
        _, activation, reads = _TAILS[chosen]

        def emit(b: relax.BlockBuilder, values: Sequence[Expr]) -> Expr:
            return activation(b, [b.emit(relax.op.add(values[0], bias)), *values[1:]])

        return (activation if activation is _bare else emit), reads


def hard_sigmoid(b: relax.BlockBuilder, values: Sequence[Expr]) -> Expr:
    """As ONNX's operator is imported."""
    sixth, half = relax.const(1 / 6, "float32"), relax.const(0.5, "float32")
    line = b.emit(relax.op.add(b.emit(relax.op.multiply(values[0], sixth)), half))
    return b.emit(relax.op.clip(line, 0.0, 1.0))


def hard_swish(b: relax.BlockBuilder, values: Sequence[Expr]) -> Expr:
    """As ONNX's operator is imported."""
    return b.emit(relax.op.multiply(values[0], hard_sigmoid(b, values)))


def hard_swish_of_six(b: relax.BlockBuilder, values: Sequence[Expr]) -> Expr:
    """As exporters write it that lack the operator."""
    shifted = b.emit(relax.op.add(values[0], relax.const(3.0, "float32")))
    gate = b.emit(
        relax.op.multiply(b.emit(relax.op.clip(shifted, 0, 6)), relax.const(1 / 6, "float32"))
    )
    return b.emit(relax.op.multiply(values[0], gate))


def _bare(_b: relax.BlockBuilder, values: Sequence[Expr]) -> Expr:
    return values[0]


def _biased(_b: relax.BlockBuilder, values: Sequence[Expr]) -> Expr:
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
"""How often, what follows the bias, and how many further inputs it reads."""
