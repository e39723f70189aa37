"""MNIST-1D: short signals of ten classes, generated from a seed.

Sam Greydanus and Dmitry Kobak, "Scaling down deep learning with MNIST-1D" (arXiv 2011.14439). Equal
seeds give the samples of the authors' package, whose import needs matplotlib and requests.
"""

from __future__ import annotations

import numpy as np
from scipy.ndimage import gaussian_filter

TEMPLATES = np.asarray(
    [
        [5, 6, 6.5, 6.75, 7, 7, 7, 7, 6.75, 6.5, 6, 5],
        [5, 3, 3, 3.4, 3.8, 4.2, 4.6, 5, 5.4, 5.8, 5, 5],
        [5, 6, 6.5, 6.5, 6, 5.25, 4.75, 4, 3.5, 3.5, 4, 5],
        [5, 6, 6.5, 6.5, 6, 5, 5, 6, 6.5, 6.5, 6, 5],
        [5, 4.4, 3.8, 3.2, 2.6, 2.6, 5, 5, 5, 5, 5, 5],
        [5, 3, 3, 3, 3, 5, 6, 6.5, 6.5, 6, 4.5, 5],
        [5, 4, 3.5, 3.25, 3, 3, 3, 3, 3.25, 3.5, 4, 5],
        [5, 7, 7, 6.6, 6.2, 5.8, 5.4, 5, 4.6, 4.2, 5, 5],
        [5, 4, 3.5, 3.5, 4, 5, 5, 4, 3.5, 3.5, 4, 5],
        [5, 4, 3.5, 3.5, 4, 5, 5, 5, 5, 4.7, 4.3, 5],
    ]
)
"""Curve of each class."""
_PADDING = (36, 60)
"""Fewest and most zeros that follow a curve."""
_SCALE = 0.4
"""Width of the range of factors on a curve."""
_MAX_TRANSLATION = 48
"""Number of translations."""
_SMOOTH_NOISE = 0.25
"""Standard deviation of the noise that is smoothed, where the signal is zero."""
_NOISE = 0.02
"""Standard deviation of the noise of each point."""
_SHEAR = 0.75
"""Width of the range of slopes that are subtracted."""
LENGTH = 40
"""Number of points of a signal."""


def make_signals(samples: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Generate `samples` signals, equally many of each class, in random order.

    Returns
    -------
    tuple
        Signals (samples, 40), float64, of mean 0 and deviation 1 in all, and classes (samples,).
    """
    # The authors draw from NumPy's old generator.
    random = np.random.RandomState(seed)
    curves = (TEMPLATES - TEMPLATES.mean(1, keepdims=True)) / TEMPLATES.std(1, keepdims=True)
    curves = (curves - curves[:, :1]) / 6
    each = samples // len(curves)
    signals = np.stack([_signal(curve, random) for curve in curves for _ in range(each)])
    order = random.permutation(len(signals))
    signals, labels = signals[order], np.repeat(np.arange(len(curves)), each)[order]
    return (signals - signals.mean()) / signals.std(), labels


def _signal(curve: np.ndarray, random: np.random.RandomState) -> np.ndarray:
    """Pad, scale, translate, add noise, shear and sample a curve; the order of draws matters."""
    low, high = _PADDING
    zeros = np.zeros(low + int(random.rand() * (high - low + 1)))
    # The small number tells points of the curve from zeros that follow it.
    signal = _resampled(np.concatenate([curve + 1e-8, zeros]), len(curve) + high)
    signal = signal * (1 + _SCALE * (random.rand() - 0.5))
    signal = np.roll(signal, random.randint(_MAX_TRANSLATION))
    smooth = gaussian_filter(_SMOOTH_NOISE * random.randn(len(signal)), 2)
    signal = np.where(signal != 0, signal, smooth) + _NOISE * random.randn(len(signal))
    slope = _SHEAR * (random.rand() - 0.5)
    return _resampled(signal - slope * np.linspace(-0.5, 0.5, len(signal)), LENGTH)


def _resampled(signal: np.ndarray, length: int) -> np.ndarray:
    """Interpolate linearly to `length` points."""
    return np.interp(np.linspace(0, 1, length), np.linspace(0, 1, len(signal)), signal)
