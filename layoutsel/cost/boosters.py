"""Pairs of gradient-boosted trees: one predicts a logarithm, the other the error of the first."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

QUANTILES = (0.1, 0.9)
"""Quantiles of the error that the second booster of a pair predicts: the outer deciles."""
QUARTILE = 0.6745
"""Upper quartile of the standard normal distribution."""
_DECILE = 1.2816
"""Upper decile of the standard normal distribution."""


@dataclass(frozen=True)
class BoosterPair:
    """Two boosters, as bytes of XGBoost."""

    point: bytes
    """Booster of a natural logarithm."""
    quantiles: bytes
    """Booster of the quantiles of its error."""

    @cached_property
    def boosters(self) -> tuple[Any, Any]:
        """Both boosters, ready to predict with one thread."""
        return _booster(self.point), _booster(self.quantiles)

    def predict(self, rows: np.ndarray, margins: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Predict the logarithm of each row.

        Parameters
        ----------
        rows
            Features, (rows, features) float32.
        margins
            Estimates of the logarithms that the booster corrects, (rows,).

        Returns
        -------
        tuple
            Natural logarithms, and half the interquartile range of their error, (rows,).
        """
        point, quantiles = self.boosters
        values = point.inplace_predict(rows, base_margin=margins).astype(np.float64)
        deciles = quantiles.inplace_predict(rows).reshape(len(rows), -1).astype(np.float64)
        return values, np.maximum(deciles[:, 1] - deciles[:, 0], 0.0) / 2 * QUARTILE / _DECILE


def _booster(raw: bytes) -> Any:
    import xgboost

    booster = xgboost.Booster({"nthread": 1})
    booster.load_model(bytearray(raw))
    return booster
