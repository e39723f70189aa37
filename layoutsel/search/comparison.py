"""Statistics of searches repeated with the same seeds: exact tests, intervals, corrections."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

_ENUMERATED = 16
"""Number of pairs up to which all signs are enumerated."""
_STEPS = 20_000
"""Steps that differences are rounded to if their signs are too many to be enumerated."""
_TIE = 1e-9
"""Relative difference of equal sums that were added in different orders."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Paired comparison of two methods."""

    mean: float
    """Mean difference."""
    low: float
    """Lower end of its 95 % interval."""
    high: float
    """Upper end of its 95 % interval."""
    wins: float
    """Share of pairs in which the first method is better; ties count half."""
    p: float
    """Two-sided probability of such a mean if the methods do not differ."""


def compare(first: Sequence[float], second: Sequence[float], seed: int = 0) -> Comparison:
    """Compare two methods by values of the same seeds; larger ones are better.

    Parameters
    ----------
    first, second
        Values of the methods, in the same order of seeds.
    seed
        Seed of the interval.
    """
    differences = np.asarray(first, dtype=float) - np.asarray(second, dtype=float)
    low, high = mean_interval(differences, seed)
    return Comparison(
        mean=float(differences.mean()),
        low=low,
        high=high,
        wins=float(np.mean(differences > 0) + np.mean(differences == 0) / 2),
        p=paired_permutation(differences),
    )


def paired_permutation(differences: Sequence[float] | np.ndarray) -> float:
    """Exact two-sided permutation test of paired differences (Fisher, 1935).

    If the methods do not differ, each difference is as likely to have the other sign. The result is
    the share of all signs whose sum is at least as far from 0. Many differences are rounded to
    steps of their largest one, which makes the count of all signs a convolution.
    """
    values = np.abs(np.asarray(differences, dtype=float))
    observed = abs(float(np.sum(differences)))
    if not values.any():
        return 1.0
    if len(values) <= _ENUMERATED:
        signs = np.array(list(itertools.product((-1.0, 1.0), repeat=len(values))))
        sums = np.abs(signs @ values)
        return float(np.mean(sums >= observed * (1 - _TIE)))
    unit = values.max() / _STEPS
    steps = np.rint(values / unit).astype(int)
    # Shares of the signs by the sum of the steps that are taken as positive.
    shares = np.zeros(int(steps.sum()) + 1)
    shares[0] = 1.0
    for step in steps:
        moved = np.zeros_like(shares)
        moved[step:] = shares[: len(shares) - step]
        shares = (shares + moved) / 2
    sums = np.abs(2 * np.arange(len(shares)) - steps.sum()) * unit
    # Half a step each is lost to rounding; the test must not gain from it.
    return float(min(shares[sums >= observed - unit * len(values) / 2].sum(), 1.0))


def mean_interval(
    values: Sequence[float] | np.ndarray, seed: int = 0, *, level: float = 0.95, draws: int = 10_000
) -> tuple[float, float]:
    """Interval of a mean by the percentile bootstrap (Efron, 1979)."""
    held = np.asarray(values, dtype=float)
    random = np.random.default_rng(seed)
    means = held[random.integers(len(held), size=(draws, len(held)))].mean(axis=1)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def holm(p: Mapping[str, float]) -> dict[str, float]:
    """Adjust the probabilities of several tests for their number (Holm, 1979)."""
    found, largest = {}, 0.0
    for rank, name in enumerate(sorted(p, key=lambda one: p[one])):
        largest = max(largest, min((len(p) - rank) * p[name], 1.0))
        found[name] = largest
    return {name: found[name] for name in p}
