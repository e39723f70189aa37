"""Latencies of an arrangement over patterns of sure exits, and the objectives of exit plans."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, kw_only=True)
class Latencies:
    """Predicted latencies of requests, and the work that a request takes."""

    mean_us: float
    """Mean, microseconds."""
    p50_us: float
    """Median, microseconds."""
    p95_us: float
    """Latency that 5 % of the samples exceed, microseconds."""
    p99_us: float
    """Latency that 1 % of the samples exceed, microseconds."""
    worst_us: float
    """Latency if no exit is sure, microseconds: no pattern takes longer, observed or not."""
    busy_us: float
    """Mean computing time of all workers for one request, microseconds."""
    waste_us: float
    """Mean computing time after the answer, which cancelling does not save, microseconds."""


def quantile(times_us: np.ndarray, samples: np.ndarray, share: float) -> float:
    """Smallest time that at least `share` of the samples do not exceed, microseconds.

    Parameters
    ----------
    times_us
        Times by pattern, microseconds.
    samples
        Number of samples by pattern.
    share
        Share, such as 0.95.
    """
    order = np.argsort(times_us, kind="stable")
    reached = np.cumsum(samples[order])
    # The tolerance keeps 0.95 × 100 at 95 samples.
    first = int(np.searchsorted(reached, share * reached[-1] * (1 - 1e-12)))
    return float(times_us[order[first]])


def mean(times_us: np.ndarray, samples: np.ndarray) -> float:
    """Mean of `times_us`, weighted by `samples`, microseconds."""
    return float(times_us @ samples) / float(samples.sum())


Objective = Callable[[np.ndarray, np.ndarray, float], float]
"""Value, microseconds, of times by pattern, samples by pattern, and the worst time."""
OBJECTIVES: Mapping[str, Objective] = {
    "mean": lambda times, samples, _: mean(times, samples),
    "p50": lambda times, samples, _: quantile(times, samples, 0.50),
    "p95": lambda times, samples, _: quantile(times, samples, 0.95),
    "p99": lambda times, samples, _: quantile(times, samples, 0.99),
    "worst": lambda _, __, worst: worst,
}
"""Objectives by name; no objective falls if a time grows."""
