"""Pareto front of two metrics: the distributions that no other one beats in both."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from layoutsel.cluster.distribution import Distribution, Distributions
from layoutsel.cluster.metrics import METRICS
from layoutsel.cluster.plan_targets import plan_targets
from layoutsel.cluster.redistributing import cluster_of
from layoutsel.cluster.segments import Target
from layoutsel.cluster.targets import TIME_LIMIT_S
from layoutsel.planning.problem import ProblemError

logger = logging.getLogger(__name__)

_SAME = 1e-6
"""Relative difference of equal values."""


def pareto(
    known: Distributions,
    targets: Sequence[str],
    *,
    points: int = 8,
    time_limit_s: float = TIME_LIMIT_S,
    spares: bool = True,
) -> Distributions:
    """Find distributions between the best ones for two metrics, without the model.

    The first metric is optimised with limits on the second one, from its value in the first
    metric's best distribution to its own best value. So the front need not be convex.

    Parameters
    ----------
    known
        Distributions with the times of the atoms, and the state to plan for.
    targets
        Names of the two metrics.
    points
        Largest number of distributions.
    time_limit_s
        Time limit of each distribution, seconds.
    spares
        True to plan without each single node as well.

    Returns
    -------
    Distributions
        Those that no other one beats in both metrics, by the first metric, the best one first.

    Raises
    ------
    ProblemError
        If there are not two different known metrics, too few points, or `known` lacks the times.
    """
    if len(set(targets)) != 2 or len(targets) != 2:
        raise ProblemError(f"got the targets {', '.join(targets)}; expected two different ones")
    if points < 2:
        raise ProblemError(f"points: got {points}; expected at least 2")
    one, other = targets
    cluster = cluster_of(known)

    def planned(target: Target) -> Distribution:
        return plan_targets(cluster, [target], time_limit_s=time_limit_s, spares=spares)[0]

    first, last = planned(Target(name=one)), planned(Target(name=other))
    found = [first, last]
    for limit in _between(_value(first, other), _value(last, other), points):
        target = Target(name=one, limits={other: limit})
        try:
            found.append(planned(target))
        except ProblemError as reason:
            logger.warning("no distribution for %s: %s", target.label, reason)
    return replace(known, distributions=tuple(_front(found, one, other)))


def _between(start: float, end: float, points: int) -> list[float]:
    """Limits from one end of the front to the other, without the start; equal ratios apart."""
    limits: list[float] = np.geomspace(start, end, points)[1:].tolist()
    return limits


def _front(found: Sequence[Distribution], one: str, other: str) -> Iterator[Distribution]:
    """Yield the distributions that no other one beats, by the first metric."""
    order = sorted(
        found,
        key=lambda it: (_cost(it, one), _cost(it, other)),
    )
    best = np.inf
    for distribution in order:
        cost = _cost(distribution, other)
        if cost < best - _SAME * abs(cost):
            best = cost
            yield distribution


def _cost(distribution: Distribution, name: str) -> float:
    """Value of a metric, of which less is better."""
    value = _value(distribution, name)
    return -value if METRICS[name].maximised else value


def _value(distribution: Distribution, name: str) -> float:
    return distribution.metrics[name].predicted
