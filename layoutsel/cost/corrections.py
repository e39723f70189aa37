"""Corrections of the learned model for one machine: their linear terms, and calibrated weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from layoutsel.cost import features
from tvm_passes.algorithms import ALGORITHMS

_INDEX = {name: position for position, name in enumerate(features.NAMES)}


def _algorithm_terms() -> list[tuple[str, float, float]]:
    """List the terms of algorithms that need one and have a feature of their own."""
    words = features.VOCABULARY["algorithm"]
    asking = (one for one in ALGORITHMS.values() if one.name in words)
    return [
        (f"algorithm_{one.name}", 0.0, one.calibration_scale)
        for one in asking
        if one.calibration_scale is not None
    ]


_BASIS: tuple[tuple[str, float, float], ...] = (
    # Feature, centre and scale; the prior of its coefficient has a standard deviation of 1 / scale.
    ("compute_us", 6.0, 20.0),
    ("weights_in_l2", -3.0, 25.0),
    ("activations_in_l2", -3.0, 25.0),
    ("intensity", 4.0, 20.0),
    ("layout_NCHW", 0.0, 4.0),
    ("layout_NHWC", 0.0, 5.0),
    *_algorithm_terms(),
    ("anchor_nn.conv2d", 0.0, 3.0),
    ("anchor_matmul", 0.0, 3.0),
    ("anchor_nn.max_pool2d", 0.0, 4.0),
    ("anchor_elementwise", 0.0, 4.0),
    ("anchor_concat", 0.0, 4.0),
    ("groups", 0.0, 20.0),
    ("kernel_fallback", 0.0, 3.0),
    ("convolution_x64_gemm_jit", 0.0, 4.0),
)
_OFFSET_SCALE = 1.5
"""Scale of the constant term: a whole machine may be off by a factor of two."""


_COLUMNS = [_INDEX[name] for name, _, _ in _BASIS]
_CENTRES = np.array([centre for _, centre, _ in _BASIS])
_SCALES = np.array([scale for _, _, scale in _BASIS])


def basis(rows: np.ndarray) -> np.ndarray:
    """Compute the terms of a correction from one row of features, or from many.

    Terms are scaled so that each coefficient has a standard normal prior.

    Parameters
    ----------
    rows
        Features, (features,) or (rows, features).

    Returns
    -------
    numpy.ndarray
        Terms, ``(TERMS,)`` or ``(rows, TERMS)``, float64.
    """
    offset = np.full((*rows.shape[:-1], 1), 1.0 / _OFFSET_SCALE)
    terms = (rows[..., _COLUMNS].astype(np.float64) - _CENTRES) / _SCALES
    return np.concatenate([offset, terms], axis=-1)


TERMS = len(_BASIS) + 1
"""Number of coefficients of a correction."""


@dataclass(frozen=True)
class Adaptation:
    """Calibrated factors on the predicted times of a machine; see :mod:`layoutsel.cost.adapt`."""

    weights: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    """Coefficients of the terms of :func:`basis`, by unit."""
