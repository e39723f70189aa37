"""Latencies of an arrangement over patterns of sure exits, and the objectives of exit plans."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from layoutsel.exits.answers import ANSWERS
from layoutsel.exits.arrangement import Arrangement, ExitCosts
from layoutsel.exits.patterns import SurePattern, pattern_table
from layoutsel.exits.simulate import ExitSimulator


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


class LatencyModel:
    """Predicts latencies of arrangements of one network over observed patterns.

    Parameters
    ----------
    costs
        Times of the network.
    patterns
        Observed patterns; none stand for requests of which no exit is sure.
    answer
        Entry of :data:`layoutsel.exits.answers.ANSWERS`.
    may_answer
        True for each exit that can be sure, the final one last.
    """

    def __init__(
        self,
        costs: ExitCosts,
        patterns: Sequence[SurePattern],
        *,
        answer: str,
        may_answer: Sequence[bool],
    ) -> None:
        self.simulator = ExitSimulator(costs)
        """Simulator of single requests."""
        self.may_answer = np.array(may_answer)
        """True for each exit that can be sure, (E,)."""
        self.sure, self.samples = pattern_table(patterns, len(may_answer))
        """Sure exits by pattern, bool (P, E), and samples by pattern, (P,)."""
        self.rule = ANSWERS[answer]
        """Rule for the answer."""
        self._unsure = pattern_table((), len(may_answer))[0]

    def value_us(self, arrangement: Arrangement, objective: str) -> float:
        """Value of an objective, microseconds."""
        return self.value_of(self.known_us(arrangement), objective)

    def value_of(self, known_us: np.ndarray, objective: str) -> float:
        """Value of an objective, of the times of all results as in :data:`answers.Rule`."""
        _, times_us = self.rule(known_us, self.sure)
        return OBJECTIVES[objective](times_us, self.samples, self._worst_us(known_us))

    def known_us(self, arrangement: Arrangement) -> np.ndarray:
        """Time of each exit's result, (E,), microseconds; NaN if it never answers."""
        return np.where(self.may_answer, self.simulator.known_us(arrangement), np.nan)

    def latencies(self, arrangement: Arrangement) -> Latencies:
        """Predict all figures of an arrangement."""
        known_us = self.known_us(arrangement)
        exits, times_us = self.rule(known_us, self.sure)
        runs = {
            pair: self.simulator.request(arrangement, *pair)
            for pair in zip(map(int, exits), map(float, times_us), strict=True)
        }
        by_pattern = [runs[int(e), float(t)] for e, t in zip(exits, times_us, strict=True)]
        return Latencies(
            **{
                f"{name}_us": value(times_us, self.samples, self._worst_us(known_us))
                for name, value in OBJECTIVES.items()
            },
            busy_us=mean(np.array([run.busy_us for run in by_pattern]), self.samples),
            waste_us=mean(np.array([run.waste_us for run in by_pattern]), self.samples),
        )

    def _worst_us(self, known_us: np.ndarray) -> float:
        return float(self.rule(known_us, self._unsure)[1][0])
