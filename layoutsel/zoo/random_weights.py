"""Seeded random weights with which activations neither vanish nor overflow."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

HE_GAIN = 2.0
"""What keeps the power of activations through a matrix and the ReLU behind it (He et al., 2015)."""

_NEAR_ONE = {("BatchNormalization", 1), ("BatchNormalization", 4), ("LayerNormalization", 1)}
"""Scales and variances: operator and position of the input."""

_FAN_IN: Mapping[str, Callable[[tuple[int, ...]], int]] = {
    "Conv": lambda shape: int(np.prod(shape[1:])),
    "ConvTranspose": lambda shape: shape[0],
    "Gemm": lambda shape: int(np.prod(shape[1:])),
    "MatMul": lambda shape: shape[0],
}
"""Summands of an output element; a transposed convolution's windows are side by side, a ``Gemm``'s matrix transposed."""


def random_weight(
    rng: np.random.Generator,
    op_type: str,
    position: int,
    shape: tuple[int, ...],
    gain: float = HE_GAIN,
) -> np.ndarray:
    """Weights of `shape` for the input at `position` of an operator.

    Matrices have a variance of `gain` over the fan-in, scales and variances of a normalisation lie in [0.8, 1.2],
    all other weights have a standard deviation of 0.1.
    """
    if (op_type, position) in _NEAR_ONE:
        return rng.uniform(0.8, 1.2, shape).astype(np.float32)
    values = rng.standard_normal(shape, dtype=np.float32)
    if position == 1 and op_type in _FAN_IN:
        values *= np.float32(np.sqrt(gain / _FAN_IN[op_type](shape)))
    else:
        values *= np.float32(0.1)
    return values
