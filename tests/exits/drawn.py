"""Random observations of exits that grow more accurate with depth."""

from __future__ import annotations

import numpy as np

from layoutsel.exits.matrix import ExitMatrix


def drawn(
    seed: int, samples: int, early: int, *, digits: int = 15, labels: bool = True
) -> ExitMatrix:
    """Scores of hard samples are lower, and so is the probability of a right answer.

    Parameters
    ----------
    seed
        Seed.
    samples
        Number of samples.
    early
        Number of exits before the final one.
    digits
        Decimal digits of the scores; few digits make ties.
    labels
        False to leave out the labels.
    """
    random = np.random.default_rng(seed)
    shape = (samples, early + 1)
    doubt = random.random((samples, 1)) * random.random(shape) * np.linspace(1.2, 0.5, early + 1)
    scores = np.clip(1 - doubt, 0, 1)
    truth = random.integers(10, size=samples)
    other = (truth[:, None] + random.integers(1, 10, size=shape)) % 10
    return ExitMatrix(
        exits=(*(f"exit{i + 1}" for i in range(early)), "final"),
        score="max_prob",
        scores=scores.round(digits),
        predictions=np.where(random.random(shape) < scores**0.5, truth[:, None], other),
        labels=truth if labels else None,
    )
