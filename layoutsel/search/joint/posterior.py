"""Surrogate of the accuracy of networks: a Gaussian process that is linear in the layers' choices.

Features are the choice of each layer, and the pair of choices of neighbouring layers. Their
weights are independent Gaussians a priori (Rasmussen and Williams, "Gaussian Processes for Machine
Learning", 2006, section 2.1); the variances maximise the marginal likelihood. A draw of all weights
is an additive score of networks, whose front is exact.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from layoutsel.search.front import Scores
from layoutsel.search.product_graph import Layer, LayerChoice, ProductGraph
from layoutsel.search.space import Architecture

_SHARES = (0.02, 0.1, 0.3)
"""Shares of the variance that pairs, or the noise, may have; the choices have the rest."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Posterior:
    """Weights of the features, given the accuracies of some networks."""

    layers: tuple[Layer, ...]
    """Layers with their choices: those of the cells."""
    features: np.ndarray
    """Features of the networks, (networks, features)."""
    variances: np.ndarray
    """Variance of each weight a priori, (features,)."""
    noise: float
    """Variance of the accuracy of a network around its score."""
    residuals: np.ndarray
    """Accuracies less their mean, (networks,)."""
    mean: float
    """Mean accuracy."""

    @classmethod
    def fit(
        cls, graph: ProductGraph, networks: Sequence[Architecture], accuracies: Sequence[float]
    ) -> Posterior:
        """Choose the variances of the largest marginal likelihood.

        Parameters
        ----------
        graph
            Space and topology.
        networks
            Networks with known accuracies.
        accuracies
            Their accuracies.
        """
        layers = graph.layers[1:-1]
        features = np.array([_features(layers, one) for one in networks])
        values = np.array(accuracies)
        residuals = values - values.mean()
        whole = max(float(residuals.var()), 1e-8)
        is_pair = np.arange(features.shape[1]) >= sum(len(layer.choices) for layer in layers)
        found = []
        for pairs, noise in itertools.product(_SHARES, _SHARES):
            single = (1 - pairs - noise) * whole / len(layers)
            pair = pairs * whole / max(1, len(layers) - 1)
            found.append(
                cls(
                    layers=layers,
                    features=features,
                    variances=np.where(is_pair, pair, single),
                    noise=noise * whole,
                    residuals=residuals,
                    mean=float(values.mean()),
                )
            )
        return max(found, key=lambda one: one.log_likelihood)

    @property
    def covariance(self) -> np.ndarray:
        """Covariance of the accuracies a priori, (networks, networks)."""
        own = (self.features * self.variances) @ self.features.T
        return own + self.noise * np.eye(len(own))

    @property
    def log_likelihood(self) -> float:
        """Logarithm of the marginal likelihood of the accuracies, up to a constant."""
        _, size = np.linalg.slogdet(self.covariance)
        solved = np.linalg.solve(self.covariance, self.residuals)
        return -0.5 * float(self.residuals @ solved + size)

    @property
    def scores(self) -> Scores:
        """Additive score by the means of the weights."""
        return self._scores(self._weights(self.residuals))

    def draw(self, random: np.random.Generator) -> Scores:
        """Additive score by a draw of the weights (Matheron's rule)."""
        prior = random.normal(scale=np.sqrt(self.variances))
        noise = random.normal(scale=np.sqrt(self.noise), size=len(self.residuals))
        return self._scores(prior + self._weights(self.residuals - self.features @ prior - noise))

    def predict(self, network: Architecture) -> float:
        """Mean accuracy of a network."""
        weights = self._weights(self.residuals)
        return self.mean + float(_features(self.layers, network) @ weights)

    def _weights(self, residuals: np.ndarray) -> np.ndarray:
        solved = np.linalg.solve(self.covariance, residuals)
        weights: np.ndarray = self.variances * (self.features.T @ solved)
        return weights

    def _scores(self, weights: np.ndarray) -> Scores:
        counts = [len(layer.choices) for layer in self.layers]
        sizes = [*counts, *(a * b for a, b in itertools.pairwise(counts))]
        blocks = np.split(weights, np.cumsum(sizes)[:-1])
        pairs = zip(blocks[len(counts) :], itertools.pairwise(counts), strict=True)
        return Scores(
            single=tuple(blocks[: len(counts)]),
            pairs=tuple(block.reshape(shape) for block, shape in pairs),
            base=self.mean,
        )


def _features(layers: Sequence[Layer], network: Architecture) -> np.ndarray:
    """Features of a network: one of each layer's choices, and one of each pair of neighbours."""
    singles = []
    for layer, channels, (operation,) in zip(
        layers, network.channels, network.operations, strict=True
    ):
        one = np.zeros(len(layer.choices))
        one[layer.choices.index(LayerChoice(operation, channels))] = 1.0
        singles.append(one)
    pairs = [np.outer(one, other).ravel() for one, other in itertools.pairwise(singles)]
    return np.concatenate([*singles, *pairs])
