"""Latencies of an arrangement over patterns of sure exits, and the objectives of exit plans."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from layoutsel.exits.answers import ANSWERS
from layoutsel.exits.arrangement import Arrangement, ExitCosts
from layoutsel.exits.patterns import SurePattern, pattern_table
from layoutsel.exits.policy import Policy
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


Objective = Callable[[np.ndarray, np.ndarray], float]
"""Value, microseconds, of times by pattern and samples by pattern; see :func:`pattern_table`."""
QUANTILES = {"p50": 0.50, "p95": 0.95, "p99": 0.99}
"""Shares of the samples by objective."""
MEAN = "mean"
"""Objective that counts interruptions by the system: quantiles and the worst case do not."""
OBJECTIVES: Mapping[str, Objective] = {
    MEAN: mean,
    **{name: partial(quantile, share=share) for name, share in QUANTILES.items()},
    "worst": lambda times_us, _: float(times_us.max()),
}
"""Objectives by name; no objective falls if a time grows."""


class LatencyModel:
    """Predicts latencies of arrangements of one network over observed patterns.

    Parameters
    ----------
    costs
        Times of the network.
    policy
        Thresholds of the exits.
    patterns
        Observed patterns; none stand for requests of which no exit is sure.
    answer
        Entry of :data:`layoutsel.exits.answers.ANSWERS`.
    """

    def __init__(
        self, costs: ExitCosts, policy: Policy, patterns: Sequence[SurePattern], *, answer: str
    ) -> None:
        self.simulator = ExitSimulator(costs)
        """Simulator of single requests."""
        early = [threshold is not None for threshold in policy.thresholds[:-1]]
        self.may_answer = np.array([*early, True])
        """True for each exit that can be sure, (E,)."""
        self.sure, self.samples = pattern_table(patterns, len(self.may_answer))
        """Sure exits by pattern, bool (P, E), and samples by pattern, (P,)."""
        self.rule = ANSWERS[answer]
        """Rule for the answer."""

    def value_us(self, arrangement: Arrangement, objective: str) -> float:
        """Value of an objective, microseconds."""
        return self.fold_us(objective, self.times_us(arrangement), self.ways(arrangement))

    def times_us(self, arrangement: Arrangement) -> list[np.ndarray]:
        """Mean times by pattern of each of :meth:`ways`, waits included, microseconds."""
        known_us = (self.known_us(way) for way, _ in self.ways(arrangement))
        return [self.rule(one, self.sure)[1] for one in known_us]

    def ways(self, arrangement: Arrangement) -> list[tuple[Arrangement, float]]:
        """List what requests to an arrangement run on, with the share of each.

        Those that find a worker of branches late run in sequence.
        """
        others = arrangement.workers - {arrangement.trunk}
        late = max((self.simulator.costs.late.get(one, 0.0) for one in others), default=0.0)
        if not late:
            return [(arrangement, 1.0)]
        return [(arrangement, 1 - late), (arrangement.in_sequence, late)]

    def fold_us(
        self,
        objective: str,
        times_us: Sequence[np.ndarray],
        ways: Sequence[tuple[Arrangement, float]],
    ) -> float:
        """Value of an objective, of the mean times of all patterns, microseconds.

        Waits for cores are rare and long. Quantiles count requests with one wait more and with one
        less, whose mean is that of the pattern. The worst latency is the mean of its pattern.

        Parameters
        ----------
        objective
            Entry of :data:`OBJECTIVES`.
        times_us
            Times as of :meth:`times_us`; larger ones never lower the value.
        ways
            Arrangements as of :meth:`ways`, or their first stages, and the share of each. The waits
            of the trunk's worker count for all stages.
        """
        parts = [
            self._with_waits(way, one_us, share * self.samples, is_mean=objective not in QUANTILES)
            for one_us, (way, share) in zip(times_us, ways, strict=True)
        ]
        value_us = OBJECTIVES[objective](*map(np.concatenate, zip(*parts, strict=True)))
        return value_us * self.simulator.costs.mean_over_median if objective == MEAN else value_us

    def _with_waits(
        self, way: Arrangement, times_us: np.ndarray, samples: np.ndarray, *, is_mean: bool
    ) -> tuple[np.ndarray, np.ndarray]:
        """Times, and their samples, of requests that wait for a core once more or once less."""
        costs = self.simulator.costs
        share = costs.waiting.get(way.trunk, 0.0)
        if is_mean or not share:
            return times_us, samples
        call_us = costs.call_us if way.is_beside else 0.0
        waiting_us = share * (times_us - call_us)
        waits = waiting_us / costs.wait_us
        more = waits % 1
        least_us = times_us - waiting_us + np.floor(waits) * costs.wait_us
        return (
            np.concatenate([least_us, least_us + costs.wait_us]),
            np.concatenate([samples * (1 - more), samples * more]),
        )

    def known_us(self, arrangement: Arrangement) -> np.ndarray:
        """Time of each exit's result, (E,), microseconds; NaN if it never answers."""
        return np.where(self.may_answer, self.simulator.known_us(arrangement), np.nan)

    def request_us(self, arrangement: Arrangement, sure: Sequence[bool]) -> float:
        """Time of the answer to a request, microseconds.

        Parameters
        ----------
        arrangement
            Workers of trunk and branches.
        sure
            Sure answers of the exits before the final one.
        """
        _, times_us = self.rule(self.known_us(arrangement), np.array([[*sure, True]]))
        return float(times_us[0])

    def latencies(self, arrangement: Arrangement) -> Latencies:
        """Predict all figures of an arrangement."""
        exits, times_us = self.rule(self.known_us(arrangement), self.sure)
        ways, every_us = self.ways(arrangement), self.times_us(arrangement)
        pairs = [(int(e), float(us)) for e, us in zip(exits, times_us, strict=True)]
        runs = {pair: self.simulator.request(arrangement, *pair) for pair in pairs}
        busy_us = np.array([runs[pair].busy_us for pair in pairs])
        waste_us = np.array([runs[pair].waste_us for pair in pairs])
        return Latencies(
            **{f"{name}_us": self.fold_us(name, every_us, ways) for name in OBJECTIVES},
            busy_us=mean(busy_us, self.samples),
            waste_us=mean(waste_us, self.samples),
        )
