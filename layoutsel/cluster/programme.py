"""Placements by integer programmes: sums, limits on several quantities, and memory at every step.

Where the solvers of sums answer for one quantity without limits, these programmes hold several:
each is a planning problem with the same candidates and other prices. Rows of memory are added for
the steps at which a placement exceeds it, until none does.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from layoutsel.cluster.memory import live_bytes, request_bytes
from layoutsel.cluster.placements import Placements
from layoutsel.cluster.problem import Cluster, Placement
from layoutsel.planning.problem import PlanningProblem
from layoutsel.planning.programme import Term

_MOST_ROUNDS = 60
"""Maximum number of times that rows of memory are added."""
_SAME = 1e-6
"""Relative excess over a limit that is due to rounding."""


@dataclass(frozen=True, kw_only=True)
class Limited:
    """Result of the programme."""

    placement: Placement | None
    """Best placement within the limits; None without one in time."""
    bound: float
    """Proven bound on the values of all placements within the limits."""
    is_infeasible: bool = False
    """True if it is proven that no placement keeps the limits."""


@dataclass(frozen=True, kw_only=True)
class SumLimit:
    """A quantity with its largest value."""

    problem: PlanningProblem
    """Planning problem whose prices are the quantity."""
    most: float
    """Largest value, in the unit of the prices."""


@dataclass(frozen=True, kw_only=True)
class PlacementLimits:
    """Limits on placements, besides the nodes' memories."""

    sums: Sequence[SumLimit] = ()
    """Limits on sums of prices."""
    latency_us: float | None = None
    """Longest time of one request, microseconds; None for any.

    Excluded are placements that exceed it even if no atom and no message waits for another one.
    """
    load_us: float | None = None
    """Longest time for which a request may occupy a resource, microseconds; None for any."""


def least_sum(
    cluster: Cluster,
    problem: PlanningProblem,
    limits: PlacementLimits | None = None,
    *,
    is_bottleneck: bool = False,
    is_mixed: bool = False,
    time_limit_s: float = 10.0,
    gap: float = 0.0,
) -> Limited:
    """Find the placement with the least sum of prices within limits and the nodes' memories.

    Parameters
    ----------
    cluster
        Nodes and network.
    problem
        Planning problem of the cluster, with the prices to minimise.
    limits
        Limits on other quantities; none by default.
    is_bottleneck
        True to minimise the longest time for which a request occupies a resource instead.
    is_mixed
        True to bound the mean of all mixes of placements that keep the limits on average. The
        result has no placement then, and memories are not considered.
    time_limit_s
        Time limit, seconds.
    gap
        Relative gap at which to stop.
    """
    limits = limits or PlacementLimits()
    programme = Placements(cluster)
    prices = programme.terms(problem)
    scale = max(max((price for _, price in prices), default=0.0), 1e-12)
    if is_bottleneck:
        programme.bottleneck(scale, cost=1.0)
    else:
        programme.price([(variable, price / scale) for variable, price in prices])
    if limits.load_us is not None:
        programme.limit_loads(limits.load_us)
    if limits.latency_us is not None:
        programme.limit_latency(limits.latency_us)
    for limit in limits.sums:
        programme.limit_sum(limit.problem, limit.most)
    found = (
        _mixed(programme, time_limit_s) if is_mixed else _with_memory(programme, time_limit_s, gap)
    )
    return Limited(
        placement=found.placement,
        bound=found.bound * scale,
        is_infeasible=found.is_infeasible,
    )


def _mixed(programme: Placements, time_limit_s: float) -> Limited:
    """Bound the mean of mixes: rows that hold for each placement hold for their mean."""
    programme.relax()
    result = programme.minimised(time_limit_s=time_limit_s)
    bound = float(result.fun) if result.status == 0 else -np.inf
    return Limited(placement=None, bound=bound, is_infeasible=result.status == 2)


def least_peak(cluster: Cluster, *, time_limit_s: float = 10.0, gap: float = 0.005) -> Limited:
    """Find the placement with the least peak memory of any node, within their memories.

    Parameters
    ----------
    cluster
        Nodes and network.
    time_limit_s
        Time limit, seconds.
    gap
        Relative gap at which to stop.
    """
    programme = Placements(cluster)
    scale = max(sum(cluster.graph.weight_bytes.values()) + request_bytes(cluster.graph), 1.0)
    peak = programme.variables([1.0], most=np.inf)
    found = _with_memory(programme, time_limit_s, gap, peak=(peak, scale))
    bound = max(found.bound * scale, _simple_bound(cluster))
    return Limited(placement=found.placement, bound=bound, is_infeasible=found.is_infeasible)


def _simple_bound(cluster: Cluster) -> float:
    """Bound on the largest peak: the mean of all weights, and the needs of each atom alone."""
    graph = cluster.graph
    needs = [sum(graph.weight_bytes.values()) / len(cluster.nodes), request_bytes(graph)]
    for atom in graph.atoms:
        at_hand = sum(
            tensor.bytes
            for tensor in graph.tensors
            if tensor.producer == atom or any(use.consumer == atom for use in tensor.uses)
        )
        own = graph.weight_bytes.get(atom, 0.0) + graph.inner_bytes.get(atom, 0.0)
        needs.append(own + at_hand)
    return float(max(needs))


def _with_memory(
    programme: Placements, time_limit_s: float, gap: float, peak: Term | None = None
) -> Limited:
    """Minimise, and add the rows of memory that the placement violates, until there are none.

    Parameters
    ----------
    programme
        Programme without rows of memory.
    time_limit_s, gap
        Limits of the solver.
    peak
        Variable of the peak memory, which no node exceeds, and its unit in bytes.
    """
    cluster, deadline = programme.cluster, time.monotonic() + time_limit_s
    added: set[tuple[str, int]] = set()
    bound, best = -np.inf, None
    for _ in range(_MOST_ROUNDS):
        left_s = max(deadline - time.monotonic(), 0.05)
        result = programme.minimised(time_limit_s=left_s, gap=gap)
        if result.mip_dual_bound is not None:
            bound = max(bound, float(result.mip_dual_bound))
        if result.x is None:
            return Limited(placement=None, bound=bound, is_infeasible=result.status == 2)
        best = programme.placement(result.x)
        value = float(result.x[peak[0]]) * peak[1] if peak is not None else np.inf
        broken = [
            (node, step)
            for node, step, size in _steps(cluster, best)
            if size > _most(cluster, node, value) * (1 + _SAME) and (node, step) not in added
        ]
        if not broken or time.monotonic() > deadline:
            break
        for node, step in broken:
            added.add((node, step))
            _limit_step(programme, node, step, peak)
    return Limited(placement=best, bound=bound)


def _most(cluster: Cluster, node: str, value: float) -> float:
    capacity = cluster.capacity(node)
    return value if capacity is None else min(capacity, value)


def _steps(cluster: Cluster, placement: Placement) -> list[tuple[str, int, float]]:
    """List the step at which each node holds most, with the bytes."""
    found = []
    for node, live in live_bytes(cluster.graph, placement).items():
        held = sum(
            cluster.graph.weight_bytes.get(atom, 0.0)
            for atom, where in placement.items()
            if where == node
        )
        if node == cluster.topology.origin:
            held += request_bytes(cluster.graph)
        step = int(np.argmax(live))
        found.append((node, step, held + live[step]))
    return found


def _limit_step(programme: Placements, node: str, step: int, peak: Term | None) -> None:
    """Add the rows that a node's memory suffices at a step, and that the peak is no less."""
    own = programme.own_bytes(node)
    terms = programme.live(node, step)
    capacity = programme.cluster.capacity(node)
    if capacity is not None:
        scaled = [(variable, size / capacity) for variable, size in terms]
        programme.row(scaled, -np.inf, 1.0 - own / capacity)
    if peak is not None:
        variable, unit = peak
        scaled = [(one, size / unit) for one, size in terms]
        programme.row([*scaled, (variable, -1.0)], -np.inf, -own / unit)
