"""A target for one cluster: its limits, the time that is left, and its answer."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

from layoutsel.cluster.energy import UJ, without_power
from layoutsel.cluster.memory import excess, peaks
from layoutsel.cluster.metrics import (
    ENERGY,
    HZ,
    LATENCY,
    MEMORY,
    METRICS,
    THROUGHPUT,
    Mix,
    Predictor,
    alone,
)
from layoutsel.cluster.problem import Cluster
from layoutsel.cluster.programme import PlacementLimits, SumLimit
from layoutsel.cluster.segments import Target
from layoutsel.planning.problem import ProblemError


@dataclass(frozen=True, kw_only=True)
class TargetAnswer:
    """Best mix found for a target."""

    mix: Mix
    """Placements with their shares of the requests."""
    bound: float
    """Proven bound on the metric of all mixes within the limits, in the metric's unit."""
    solver: str
    """Name of the solver that proved the bound."""


class Asked:
    """A target for one cluster, with the time that is left for it.

    Parameters
    ----------
    predictor
        Metrics of the cluster's mixes.
    target
        Metric to optimise, and limits.
    deadline
        Deadline by :func:`time.monotonic`, seconds.

    Raises
    ------
    ProblemError
        If the target or a limit is unknown, or needs the power of a node that has none.
    """

    def __init__(self, predictor: Predictor, target: Target, deadline: float) -> None:
        check_target(target, predictor.cluster)
        most = target.limits.get(MEMORY)
        if most is not None:
            predictor = Predictor(replace(predictor.cluster, most_bytes=most))
        self.predictor = predictor
        self.target = target
        self.deadline = deadline

    @property
    def cluster(self) -> Cluster:
        """Nodes and network; a limit of memory is part of it."""
        return self.predictor.cluster

    def left_s(self, share: float = 1.0) -> float:
        """Share of the time that is left, seconds."""
        return max(self.deadline - time.monotonic(), 0.02) * share

    def about(self, target: Target, share: float = 1.0) -> Asked:
        """Ask for another target of the same cluster, in a share of the time that is left."""
        return Asked(self.predictor, target, time.monotonic() + self.left_s(share))

    def broken(self, mix: Mix) -> str:
        """Describe the first limit that a mix breaks; empty if it keeps all of them."""
        held = peaks(self.cluster, [share.placement for share in mix])
        for node, size in excess(self.cluster, held):
            return f"{size / 1e6:.3g} MB of memory are missing on {node}"
        for name, limit in self.target.limits.items():
            entry = METRICS[name]
            single = [alone(share.placement) for share in mix]
            for one in single if entry.limits_each else [mix]:
                value = entry.value(self.predictor, one)
                if not entry.keeps(value, limit):
                    return f"{name} is {value:.4g} {entry.unit}, its limit {limit:.4g}"
        return ""

    def value(self, mix: Mix) -> float:
        """Value of the target's metric for a mix."""
        return METRICS[self.target.name].value(self.predictor, mix)

    def limits(self, *, is_in_turn: bool = False) -> PlacementLimits:
        """Limits on placements, besides those of memory.

        Parameters
        ----------
        is_in_turn
            True to limit the sum of all times in place of the latency, which is at most that sum.
        """
        known = self.target.limits
        latency_us, least_hz = known.get(LATENCY), known.get(THROUGHPUT)
        sums = []
        if ENERGY in known:
            sums.append(SumLimit(problem=self.predictor.energy, most=known[ENERGY] / UJ))
        if is_in_turn and latency_us is not None:
            sums.append(SumLimit(problem=self.cluster.problem, most=latency_us))
        return PlacementLimits(
            sums=sums,
            latency_us=latency_us,
            load_us=None if least_hz is None else HZ / least_hz,
        )


def check_target(target: Target, cluster: Cluster | None = None) -> None:
    """Reject an unknown target, or one that the cluster cannot have.

    Raises
    ------
    ProblemError
        The message names the target, the limit and what is expected.
    """
    for name in (target.name, *target.limits):
        if name not in METRICS:
            raise ProblemError(f"target {name!r}: expected one of {', '.join(METRICS)}")
        lacking = without_power(cluster) if cluster is not None and name == ENERGY else ()
        if lacking:
            raise ProblemError(
                f"target {ENERGY!r}: got no power of the nodes {', '.join(lacking)}; expected "
                f"power_w for each node of the topology"
            )
    for name, limit in target.limits.items():
        if not limit > 0:
            raise ProblemError(f"limit of {name}: got {limit:g}; expected a number above 0")
