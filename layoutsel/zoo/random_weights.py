"""Seeded random weights that let activations neither vanish nor overflow."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

HE_GAIN = 2.0
"""Gain that preserves the power of activations through a matrix and a ReLU (He et al., 2015)."""

_NEAR_ONE = {("BatchNormalization", 1), ("BatchNormalization", 4), ("LayerNormalization", 1)}
"""Operators and input positions of scales and variances."""

_FAN_IN: Mapping[str, Callable[[tuple[int, ...]], int]] = {
    "Conv": lambda shape: int(np.prod(shape[1:])),
    "ConvTranspose": lambda shape: shape[0],
    "Gemm": lambda shape: int(np.prod(shape[1:])),
    "MatMul": lambda shape: shape[-2:][0],
}
"""Number of summands of an output element, by operator.

Windows of a ``ConvTranspose`` do not overlap here, and the matrix of a ``Gemm`` is transposed.
"""


def random_weight(
    rng: np.random.Generator,
    op_type: str,
    position: int,
    shape: tuple[int, ...],
    gain: float = HE_GAIN,
) -> np.ndarray:
    """Random weights for one input of an operator.

    Matrices have a variance of `gain` over the fan-in. Scales and variances of a normalisation
    are in [0.8, 1.2]. All other weights have a standard deviation of 0.1.

    Parameters
    ----------
    rng
        Source of random numbers.
    op_type
        Name of the ONNX operator.
    position
        Position of the input.
    shape
        Dimensions of the weight.
    gain
        Gain of a matrix.
    """
    if (op_type, position) in _NEAR_ONE:
        return rng.uniform(0.8, 1.2, shape).astype(np.float32)
    values = rng.standard_normal(shape, dtype=np.float32)
    if position == 1 and op_type in _FAN_IN:
        values *= np.float32(np.sqrt(gain / _FAN_IN[op_type](shape)))
    else:
        values *= np.float32(0.1)
    return values
