"""Gain of one distribution over another in the same state, with its uncertainty.

Errors of predicted times concern both distributions: where both run the same atoms on machines of
the same class, they cancel. So the uncertainty of a gain is smaller than that of either value. It
is the spread over random errors, the same ones for both.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from layoutsel.cluster.distribution import Distribution, Distributions
from layoutsel.cluster.links import RATE_SPREAD, MessageRoutes
from layoutsel.cluster.metrics import METRICS, Mix, Predictor, Share
from layoutsel.cluster.problem import ClassCosts, Cluster
from layoutsel.cluster.redistributing import cluster_of
from layoutsel.cluster.statistics import Statistics, stale_spread

_DRAWS = 24
"""Number of draws of all errors."""
_TO_SIGMA = 1.4826
"""Standard deviation of a normal distribution over half its interquartile range."""
_LEAST = 0.1
"""Smallest factor that an error is drawn as: times and rates are positive."""


class ReplacementGains:
    """Compares distributions in one state.

    Parameters
    ----------
    known
        Distributions with the times of the atoms.
    statistics
        Present state.
    """

    def __init__(self, known: Distributions, statistics: Statistics) -> None:
        self._cluster = cluster_of(replace(known, statistics=statistics))

    def value(self, distribution: Distribution) -> float:
        """Predicted value of a distribution's target."""
        entry = METRICS[distribution.target.name]
        return entry.value(Predictor(self._cluster), _mix(distribution))

    def gain(self, new: Distribution, old: Distribution) -> float:
        """Predicted relative gain in the target of `new`, for instance 0.1 for 10 %."""
        return _gain(Predictor(self._cluster), new, old)

    def sigma(self, new: Distribution, old: Distribution) -> float:
        """Standard deviation of the gain."""
        generator = np.random.default_rng(0)
        drawn = (Predictor(self._drawn(generator)) for _ in range(_DRAWS))
        return float(np.std([_gain(one, new, old) for one in drawn]))

    def _drawn(self, generator: np.random.Generator) -> Cluster:
        """Cluster with other times and rates, as far as they are uncertain."""
        cluster = self._cluster
        common = {name: generator.standard_normal() for name in cluster.costs}
        return replace(
            cluster,
            costs={
                name: _drawn_costs(costs, common[name], generator)
                for name, costs in cluster.costs.items()
            },
            routes=_drawn_routes(cluster.routes, generator),
        )


def _gain(predictor: Predictor, new: Distribution, old: Distribution) -> float:
    entry = METRICS[new.target.name]
    after, before = (entry.value(predictor, _mix(one)) for one in (new, old))
    ratio = before / after if entry.maximised else after / before
    return 1 - ratio


def _mix(distribution: Distribution) -> Mix:
    return tuple(
        Share(
            weight=route.weight,
            placement={atom: one.node for one in route.segments for atom in one.atoms},
        )
        for route in distribution.routes
    )


def _drawn_costs(costs: ClassCosts, common: float, generator: np.random.Generator) -> ClassCosts:
    errors = generator.standard_normal(len(costs.us))
    return replace(
        costs,
        us={
            atom: us
            * _factor(costs.shared_spread, common)
            * _factor(costs.spread_us.get(atom, 0.0) / max(us, 1e-9), error)
            for (atom, us), error in zip(costs.us.items(), errors, strict=True)
        },
    )


def _drawn_routes(routes: MessageRoutes, generator: np.random.Generator) -> MessageRoutes:
    states = {frozenset((one.source, one.target)): one for one in routes.statistics.links}
    factors: dict[frozenset[str], float] = {}
    for link in routes.topology.links:
        ends = frozenset((link.source, link.target))
        age_s = states[ends].age_s if ends in states else 0.0
        spread = RATE_SPREAD + stale_spread(age_s)
        factors[ends] = _factor(spread, generator.standard_normal())
    links = tuple(
        replace(link, gbps=link.gbps * factors[frozenset((link.source, link.target))])
        for link in routes.topology.links
    )
    seen = tuple(
        replace(one, gbps=None if one.gbps is None else one.gbps * factors[ends])
        for ends, one in states.items()
    )
    return MessageRoutes(
        replace(routes.topology, links=links), replace(routes.statistics, links=seen)
    )


def _factor(spread: float, error: float) -> float:
    """Factor of a relative uncertainty, half the interquartile range, for a normal error."""
    return max(1 + _TO_SIGMA * spread * error, _LEAST)
