"""Random networks of a supernet's selectors within limits.

Noise on the logarithms of the probabilities turns the exact projection into a draw ("perturb and
maximise", Papandreou and Yuille, ICCV 2011): without limits and at the temperature 1, each
operation is drawn with its probability.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from layoutsel.search.offload.settings import SelectorState


def with_noise(
    state: SelectorState, random: np.random.Generator, temperature: float = 1.0
) -> SelectorState:
    """Copy of selectors with noise on the logarithms of their probabilities.

    Operations and devices have noise; the other selectors keep their probabilities.

    Parameters
    ----------
    state
        Selectors.
    random
        Generator of the noise.
    temperature
        Size of the noise of operations, which are drawn with this root of their probabilities.
    """

    def drawn(probability: np.ndarray, size: float) -> np.ndarray:
        noise = size * random.gumbel(size=probability.shape)
        weights = probability * np.exp(noise - noise.max(-1, keepdims=True))
        return weights / weights.sum(-1, keepdims=True)

    def one_of_two(probability: np.ndarray) -> np.ndarray:
        return drawn(np.stack([probability, 1 - probability], axis=-1), 1.0)[..., 0]

    return replace(
        state,
        operations=tuple(drawn(one, temperature) for one in state.operations),
        resources=tuple(one_of_two(one) for one in state.resources),
    )
