"""Choice of the next network to evaluate: the largest expected gain.

The gain is dominated volume, or accuracy within limits of time. The time of a network is known
before its accuracy is, so that both are functions of the accuracy alone, and their expectations
means over quantiles.
"""

from __future__ import annotations

from statistics import NormalDist

import numpy as np

from layoutsel.search.dominance import non_dominated
from layoutsel.search.surrogate import to_accuracy

_QUANTILES = 16
"""Number of equally likely values that stand for a normal distribution."""
_NORMAL = np.array(
    [NormalDist().inv_cdf((index + 0.5) / _QUANTILES) for index in range(_QUANTILES)]
)


class Staircase:
    """Best known accuracy over time, and the volume under it.

    Parameters
    ----------
    us
        Times of known networks, (known,).
    accuracy
        Their accuracies, (known,).
    reference
        Largest time and smallest accuracy that count.
    """

    def __init__(
        self, us: np.ndarray, accuracy: np.ndarray, reference: tuple[float, float]
    ) -> None:
        most_us, least = reference
        counts = (us < most_us) & (accuracy > least)
        us, accuracy = us[counts], accuracy[counts]
        kept = non_dominated(us, accuracy, np.zeros((len(us), 0)))
        self._reference = reference
        self._heights = np.append(least, accuracy[kept])
        self._edges = np.concatenate([[-np.inf], us[kept], [most_us]])
        first = self._edges[1]
        widths = np.diff(np.append(first, self._edges[1:]))
        self._volumes = np.append(0.0, np.cumsum(widths * self._heights))

    def gain(self, us: np.ndarray, accuracy: np.ndarray) -> np.ndarray:
        """Volume that networks add, each alone; arrays of any equal shapes."""
        most_us, least = self._reference
        us, accuracy = np.minimum(us, most_us), np.maximum(accuracy, least)
        # A network counts from its own time to the first one with at least its accuracy.
        end_us = self._edges[1:][np.searchsorted(self._heights[1:], accuracy)]
        below = self._volume(end_us) - self._volume(us)
        return np.where(end_us > us, accuracy * (end_us - us) - below, 0.0)

    def _volume(self, us: np.ndarray) -> np.ndarray:
        """Volume under the stairs up to a time, from the first step on; negative before it."""
        step = np.clip(np.searchsorted(self._edges, us, side="right") - 1, 0, None)
        step = np.minimum(step, len(self._heights) - 1)
        start = np.where(step == 0, self._edges[1], self._edges[step])
        return self._volumes[step] + (us - start) * self._heights[step]


def expected_gain(
    stairs: Staircase, us: np.ndarray, mean: np.ndarray, deviation: np.ndarray
) -> np.ndarray:
    """Expected gain of volume of each network, (networks,).

    Parameters
    ----------
    stairs
        Known networks.
    us
        Times, (networks,).
    mean, deviation
        Distribution of the surrogate's values, (networks,).
    """
    accuracy = to_accuracy(mean[:, None] + deviation[:, None] * _NORMAL)
    return stairs.gain(us[:, None], accuracy).mean(axis=1)


def expected_improvement(
    best: np.ndarray, within: np.ndarray, mean: np.ndarray, deviation: np.ndarray
) -> np.ndarray:
    """Expected gain of accuracy within limits of time, summed over the limits, (networks,).

    Parameters
    ----------
    best
        Best known accuracy within each limit, (limits,).
    within
        True for networks that keep a limit, (limits, networks).
    mean, deviation
        Distribution of the surrogate's values, (networks,).
    """
    accuracy = to_accuracy(mean[:, None] + deviation[:, None] * _NORMAL)
    total = np.zeros(len(mean))
    for known, keeps in zip(best, within, strict=True):
        total[keeps] += np.maximum(accuracy[keeps] - known, 0.0).mean(axis=1)
    return total
