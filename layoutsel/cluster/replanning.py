"""Plans of other distributions for the present statistics, compared with the running one."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial

from layoutsel.cluster.attained import AttainedRatios
from layoutsel.cluster.distribution import Distributions
from layoutsel.cluster.metrics import THROUGHPUT
from layoutsel.cluster.redistributing import redistribute
from layoutsel.cluster.replacement_gains import ReplacementGains
from layoutsel.cluster.segments import Distribution
from layoutsel.cluster.statistics import Statistics
from layoutsel.cluster.watch import LEAST_GAIN, Replacement
from tvm_passes.errors import LayoutselError

logger = logging.getLogger(__name__)

TIME_LIMIT_S = 5.0
"""Time limit of planning again, seconds."""
_SAME, _SAME_BUSY = 0.1, 0.03
"""Relative change, and change of a share, that are no reason to plan again."""


@dataclass(frozen=True, kw_only=True)
class _Proposal:
    """The last answer."""

    statistics: Statistics
    """State that it is for."""
    running: Distribution
    """Distribution that it was compared with."""
    ratio: float
    """Attained over predicted throughput of that distribution."""
    answer: Replacement | None
    """The answer."""


class Replanner:
    """Plans again for snapshots of a running network, without its model and without compiling.

    Planning takes processor time of the origin, so an answer is given again while the state is
    about the same.

    Parameters
    ----------
    known
        Distributions with the times of the atoms.
    current
        Returns the running distribution.
    attained_hz
        Returns its throughput under full load; None if it is not known.
    """

    def __init__(
        self,
        known: Distributions,
        current: Callable[[], Distribution],
        attained_hz: Callable[[], float | None] = lambda: None,
    ) -> None:
        self._known, self._current, self._attained_hz = known, current, attained_hz
        self._ratios = AttainedRatios()
        self._last: _Proposal | None = None

    def __call__(self, statistics: Statistics) -> Replacement | None:
        """Plan for a snapshot and predict the gain; None if nothing can be planned."""
        now, running, last = self._known_part(statistics), self._current(), self._last
        ratio = self._ratio_of(running, now)
        if (
            last is None
            or last.running is not running
            or not math.isclose(last.ratio, ratio, rel_tol=_SAME)
            or not _is_alike(last.statistics, now)
        ):
            answer = self._planned(now, running)
            last = _Proposal(statistics=now, running=running, ratio=ratio, answer=answer)
            self._last = last
        return last.answer

    def _ratio_of(self, running: Distribution, now: Statistics) -> float:
        """Attained over predicted throughput of the running distribution; 1 if unknown."""
        if running.target.name != THROUGHPUT:
            return 1.0
        nodes = frozenset(running.nodes)
        if (attained_hz := self._attained_hz()) is not None and self._known.costs:
            predicted_hz = ReplacementGains(self._known, now).value(running)
            self._ratios.add(nodes, attained_hz, predicted_hz)
        return self._ratios.ratio(nodes)

    def _planned(self, now: Statistics, running: Distribution) -> Replacement | None:
        try:
            found = list(self._candidates(now, running))
        except LayoutselError as error:
            logger.warning("no other distribution: %s", error)
            return None
        gains = ReplacementGains(self._known, now)
        new, gain = max(
            ((one, self._gain(gains, one, running)) for one in found), key=lambda pair: pair[1]
        )
        # The uncertainty of a gain that is too small anyway does not matter.
        sigma = gains.sigma(new, running) if gain > LEAST_GAIN else 0.0
        return Replacement(distribution=new, gain=gain, sigma=sigma)

    def _candidates(self, now: Statistics, running: Distribution) -> Iterator[Distribution]:
        """Yield the best distribution as predicted, and for throughput that on the origin alone.

        Without messages, what an engine does for them cannot be underestimated.
        """
        planned = partial(
            redistribute, self._known, now, targets=[running.target], time_limit_s=TIME_LIMIT_S
        )
        yield planned()[running.target.name]
        topology = self._known.topology
        if running.target.name == THROUGHPUT and len(topology.computing) > 1:
            others = [one.id for one in topology.computing if one.id != topology.origin]
            # Nodes behind a gateway are lost with it.
            direct = [node for node in others if topology.by_id[node].via not in others]
            with suppress(LayoutselError):  # the network does not fit the origin
                yield planned(lost=direct)[running.target.name]

    def _gain(self, gains: ReplacementGains, new: Distribution, running: Distribution) -> float:
        """Predicted gain, corrected by what both have attained."""
        before, after = (self._ratios.ratio(frozenset(one.nodes)) for one in (running, new))
        return 1 - (1 - gains.gain(new, running)) * before / after

    def _known_part(self, statistics: Statistics) -> Statistics:
        """Statistics without messages that pass switches: they tell no single link."""
        pairs = {frozenset((one.source, one.target)) for one in self._known.topology.links}
        links = (one for one in statistics.links if frozenset((one.source, one.target)) in pairs)
        return replace(statistics, links=tuple(links))


def _is_alike(one: Statistics, other: Statistics) -> bool:
    """True if loads, free memories and links have hardly changed."""
    before, after = _numbers(one), _numbers(other)
    return before.keys() == after.keys() and all(
        math.isclose(value, after[name], rel_tol=_SAME, abs_tol=_SAME_BUSY)
        for name, value in before.items()
    )


def _numbers(statistics: Statistics) -> dict[tuple[str, str], float]:
    """Numbers that a plan depends on; absent ones are 0."""
    found: dict[tuple[str, str], float] = {}
    for name, node in statistics.nodes.items():
        found["busy", name] = node.others_busy
        found["free", name] = node.free_bytes or 0.0
    for link in statistics.links:
        ends = " ".join(sorted((link.source, link.target)))
        found["rate", ends] = link.gbps or 0.0
        found["round trip", ends] = link.rtt_us or 0.0
    return found
