"""Plans of other distributions for the present statistics, compared with the running one."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace

from layoutsel.cluster.distribution import Distributions
from layoutsel.cluster.links import MessageRoutes
from layoutsel.cluster.metrics import METRICS, Predictor, Share
from layoutsel.cluster.problem import Cluster
from layoutsel.cluster.redistributing import redistribute
from layoutsel.cluster.segments import Distribution
from layoutsel.cluster.statistics import Statistics
from layoutsel.cluster.watch import Replacement
from tvm_passes.errors import LayoutselError

logger = logging.getLogger(__name__)

TIME_LIMIT_S = 5.0
"""Time limit of planning again, seconds."""


class Replanner:
    """Plans again for snapshots of a running network, without its model and without compiling.

    Parameters
    ----------
    known
        Distributions with the times of the atoms.
    current
        Returns the running distribution.
    """

    def __init__(self, known: Distributions, current: Callable[[], Distribution]) -> None:
        self._known, self._current = known, current

    def __call__(self, statistics: Statistics) -> Replacement | None:
        """Plan for a snapshot and predict the gain; None if nothing can be planned."""
        now = self._known_part(statistics)
        running = self._current()
        try:
            found = redistribute(
                self._known, now, targets=[running.target], time_limit_s=TIME_LIMIT_S
            )
        except LayoutselError as error:
            logger.warning("no other distribution: %s", error)
            return None
        (new,) = found.distributions
        name = running.target.name
        predicted = new.metrics[name]
        present = self._predict(running, now)[name]
        ratio = present / predicted.predicted
        if METRICS[name].maximised:
            ratio = 1 / ratio
        return Replacement(
            distribution=new,
            gain=1 - 1 / ratio,
            sigma=predicted.spread / max(predicted.predicted, 1e-12),
        )

    def _known_part(self, statistics: Statistics) -> Statistics:
        """Statistics without messages that pass switches: they tell no single link."""
        pairs = {frozenset((one.source, one.target)) for one in self._known.topology.links}
        links = (one for one in statistics.links if frozenset((one.source, one.target)) in pairs)
        return replace(statistics, links=tuple(links))

    def _predict(self, distribution: Distribution, now: Statistics) -> dict[str, float]:
        """Metrics of a distribution in another state than it was made for."""
        known = self._known
        assert known.graph is not None, "redistribute has checked it"
        cluster = Cluster(
            graph=known.graph,
            classes=known.classes,
            costs=known.costs,
            routes=MessageRoutes(known.topology, now),
        )
        mix = tuple(
            Share(
                weight=route.weight,
                placement={atom: one.node for one in route.segments for atom in one.atoms},
            )
            for route in distribution.routes
        )
        return Predictor(cluster).values(mix)
