"""Surrogate of accuracy: a Gaussian process over networks that are described by groups of features.

The covariance of two networks falls exponentially with a weighted sum of distances, one for each
group of features. Weights, variance and noise have the largest posterior density (Rasmussen and
Williams, "Gaussian Processes for Machine Learning", 2006, chapters 2 and 5). Hence groups that say
nothing of the accuracy lose their weight, and any number of them may be offered.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.linalg import LinAlgError, cho_solve, cholesky, solve_triangular
from scipy.optimize import minimize

_MARGIN = 0.005
"""Share of errors that is added to all, so that a network without errors has a finite value."""
_JITTER = 1e-8
"""Variance that is added for stable numbers, relative to that of the values."""


def to_value(accuracy: np.ndarray) -> np.ndarray:
    """Convert accuracies to values of the surrogate: the negative logarithm of the error rate.

    An error rate that is halved counts the same everywhere, and values are closer to normal.
    """
    return -np.log(1 + _MARGIN - np.asarray(accuracy, dtype=float))


def to_accuracy(value: np.ndarray) -> np.ndarray:
    """Inverse of :func:`to_value`."""
    return 1 + _MARGIN - np.exp(-np.asarray(value, dtype=float))


@dataclass(frozen=True, kw_only=True, eq=False)
class FeatureGroup:
    """Features of networks that have one distance."""

    name: str
    """Name."""
    values: np.ndarray
    """Features, (networks, features)."""
    is_category: bool = False
    """True if only equality matters: the distance is the share of features that differ.

    Otherwise it is the square of the Euclidean distance.
    """

    def __getitem__(self, rows: np.ndarray | slice) -> FeatureGroup:
        return FeatureGroup(name=self.name, values=self.values[rows], is_category=self.is_category)

    def distances(self, other: FeatureGroup) -> np.ndarray:
        """Distances to the networks of `other`, (networks, networks of the other)."""
        if self.is_category:
            return np.stack([(row != other.values).mean(axis=1) for row in self.values])
        own, far = self.values, other.values
        squares = (own**2).sum(axis=1)[:, None] + (far**2).sum(axis=1) - 2 * own @ far.T
        return np.maximum(squares, 0.0)


def distances(first: Sequence[FeatureGroup], second: Sequence[FeatureGroup]) -> np.ndarray:
    """Distances of all groups, (groups, networks of `first`, networks of `second`), float32."""
    found = [one.distances(other) for one, other in zip(first, second, strict=True)]
    return np.stack(found).astype(np.float32)


@dataclass(frozen=True, kw_only=True)
class _Prior:
    """Normal distribution of a logarithm, and its range."""

    mean: float
    deviation: float
    low: float
    high: float


_WEIGHT = _Prior(mean=-1.0, deviation=1.5, low=-8.0, high=5.0)
"""Prior of the logarithm of a group's weight."""
_VARIANCE = _Prior(mean=0.0, deviation=1.0, low=-3.0, high=4.0)
"""Prior of the logarithm of the variance; values have variance 1."""
_NOISE = _Prior(mean=float(np.log(0.01)), deviation=1.0, low=float(np.log(1e-4)), high=-0.7)
"""Prior of the logarithm of the variance of noise."""


class GaussianProcess:
    """Distribution of values, given those of some networks.

    Parameters
    ----------
    groups
        Number of groups of features.
    """

    def __init__(self, groups: int) -> None:
        self._priors = (*[_WEIGHT] * groups, _VARIANCE, _NOISE)
        self.parameters = np.array([prior.mean for prior in self._priors])
        """Logarithms of the weights, the variance and the noise."""
        self._mean, self._scale = 0.0, 1.0
        self._root = np.zeros((0, 0))
        self._solved = np.zeros(0)

    def tune(self, within: np.ndarray, values: np.ndarray, steps: int = 30) -> None:
        """Set the parameters to those of the largest posterior density, from the present ones.

        Parameters
        ----------
        within
            Distances between the known networks, (groups, known, known).
        values
            Values of the known networks, (known,).
        steps
            Maximum number of steps of the search.
        """
        y = (values - values.mean()) / (values.std() + 1e-9)
        found = minimize(
            self._loss,
            self.parameters,
            args=(within.astype(float), y),
            jac=True,
            method="L-BFGS-B",
            bounds=[(prior.low, prior.high) for prior in self._priors],
            options={"maxiter": steps},
        )
        self.parameters = found.x

    def condition(self, within: np.ndarray, values: np.ndarray) -> None:
        """Take known values; arguments as for :meth:`tune`."""
        self._mean, self._scale = float(values.mean()), float(values.std() + 1e-9)
        noise = np.exp(self.parameters[-1]) + _JITTER
        covariance = self._covariance(within.astype(float), self.parameters)
        self._root = cholesky(covariance + noise * np.eye(len(values)), lower=True)
        self._solved = cho_solve((self._root, True), (values - self._mean) / self._scale)

    def predict(self, across: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation of values without noise.

        Parameters
        ----------
        across
            Distances from the known networks, (groups, known, networks).
        """
        covariance = self._covariance(across, self.parameters)
        mean = self._solved.astype(covariance.dtype) @ covariance
        part = solve_triangular(self._root.astype(covariance.dtype), covariance, lower=True)
        variance = np.exp(self.parameters[-2]) - (part**2).sum(axis=0)
        deviation = np.sqrt(np.maximum(variance, 1e-9))
        return self._mean + self._scale * mean.astype(float), self._scale * deviation.astype(float)

    def _covariance(self, between: np.ndarray, parameters: np.ndarray) -> np.ndarray:
        weights = np.exp(parameters[:-2]).astype(between.dtype)
        exponent = np.einsum("g,gij->ij", weights, between)
        return np.exp(parameters[-2].astype(between.dtype) - exponent)

    def _loss(
        self, parameters: np.ndarray, within: np.ndarray, y: np.ndarray
    ) -> tuple[float, np.ndarray]:
        """Negative logarithm of the posterior density, and its gradient."""
        covariance = self._covariance(within, parameters)
        noise = np.exp(parameters[-1])
        try:
            root = cholesky(covariance + (noise + _JITTER) * np.eye(len(y)), lower=True)
        except LinAlgError:
            return 1e6, np.zeros_like(parameters)
        solved = cho_solve((root, True), y)
        inverse = cho_solve((root, True), np.eye(len(y)))
        slope = (inverse - np.outer(solved, solved)) / 2
        weighted = -np.exp(parameters[:-2])[:, None, None] * within * covariance
        gradient = np.append(
            (weighted * slope).sum(axis=(1, 2)),
            [(covariance * slope).sum(), noise * np.trace(slope)],
        )
        means, deviations = np.array([[p.mean, p.deviation] for p in self._priors]).T
        away = (parameters - means) / deviations
        loss = y @ solved / 2 + np.log(np.diag(root)).sum() + (away**2).sum() / 2
        return float(loss), gradient + away / deviations
