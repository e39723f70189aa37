"""The target throughput: the planner of mixtures, within memories and limits of single requests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from layoutsel.cluster.asked import Asked, TargetAnswer
from layoutsel.cluster.memory import excess, peaks, request_bytes
from layoutsel.cluster.metrics import HZ, Mix, Share, alone
from layoutsel.cluster.problem import Cluster
from layoutsel.cluster.programme import least_sum
from layoutsel.cluster.sums import least, placed
from layoutsel.cluster.throughput import Throughput, best_throughput
from layoutsel.planning.columns import rows_of
from layoutsel.planning.loads import LoadTables, Rooms
from layoutsel.planning.placement_pool import PlacementPool
from layoutsel.planning.problem import ProblemError
from layoutsel.planning.tables import to_choice
from tvm_passes.decision import SubgraphId

_MOST_ROUNDS = 3
"""Maximum number of times that room for live tensors is added."""
_LEAST_SHARE = 1e-4
"""Minimum share of the requests of a route."""
_LOOSE = 0.01
"""Relative gap from which on another bound is tried."""
_LEAST_LOAD_US = 1e-9
"""Bound on the time for which a request occupies some resource if no other is known, us."""


def most_requests(asked: Asked) -> TargetAnswer:
    """Mix placements in steady state; with limits, each placement keeps those on one request.

    The planner knows the weights in the memories. Room for live tensors is kept free in addition,
    as much as the mixtures found before needed. Few mixtures fit into memories, so the best single
    placement is considered as well.
    """
    cluster = asked.cluster
    reserved: dict[str, float] = {}
    bound, found = 0.0, None
    mixes: list[Mix] = []
    for _ in range(_MOST_ROUNDS):
        try:
            found = best_throughput(
                cluster.problem, rooms=_rooms(cluster, reserved), time_limit_s=asked.left_s(0.4)
            )
        except ProblemError:
            break
        bound = bound or found.bound_per_us * HZ  # room for tensors is not part of a bound
        mix = _mix(cluster, found)
        mixes.append(mix)
        held = peaks(cluster, [share.placement for share in mix])
        missing = dict(excess(cluster, held))
        if not missing:
            break
        for node, size in missing.items():
            reserved[node] = reserved.get(node, 0.0) + size
    kept = [mix for mix in mixes if not asked.broken(mix)]
    if not kept or _rooms(cluster, {}) is not None:
        kept += _within_limits(asked, mixes)
    kept = kept or [least(asked, cluster.problem).mix]  # raises if nothing keeps the limits
    best = max(kept, key=asked.value)
    if bound and asked.value(best) < (1 - _LOOSE) * bound:
        # Column generation has had too little time for the prices of so many nodes.
        bound = min(bound, bound_hz(asked))
    kind = f" ({found.strategy})" if found is not None and best is mixes[-1] else ""
    return TargetAnswer(
        mix=best,
        bound=max(bound or bound_hz(asked), asked.value(best)),
        solver=f"column generation{kind}" if bound else "linear programming",
    )


def bound_hz(asked: Asked) -> float:
    """Bound on the throughput of all mixes, from one linear programme without memories."""
    found = least_sum(
        asked.cluster,
        asked.cluster.problem,
        asked.limits(),
        is_bottleneck=True,
        is_mixed=True,
        time_limit_s=asked.left_s(),
    )
    return HZ / max(found.bound, _LEAST_LOAD_US)


def _rooms(cluster: Cluster, reserved: Mapping[str, float]) -> Rooms | None:
    """Memories for weights: without what every request takes, and without what is reserved."""
    origin = cluster.topology.origin
    own = {origin: request_bytes(cluster.graph)}
    rooms = {
        cluster.routes.processor(node): max(
            capacity - own.get(node, 0.0) - reserved.get(node, 0.0), 1.0
        )
        for node in cluster.nodes
        if (capacity := cluster.capacity(node)) is not None
    }
    if not rooms:
        return None
    held = {SubgraphId(atom): size for atom, size in cluster.graph.weight_bytes.items()}
    return Rooms(held_bytes=held, room_bytes=rooms)


def _mix(cluster: Cluster, found: Throughput) -> Mix:
    kept = [(weight, one) for weight, one in found.routes if weight >= _LEAST_SHARE]
    total = sum(weight for weight, _ in kept)
    return tuple(
        Share(weight=weight / total, placement=cluster.placement(one)) for weight, one in kept
    )


def _within_limits(asked: Asked, mixes: Sequence[Mix]) -> list[Mix]:
    """List mixes that keep the limits: routes found, whole nodes, the best pipeline, and all."""
    cluster = asked.cluster
    found = placed(asked, cluster.problem, 0.4, is_bottleneck=True, gap=0.005)
    placements = [share.placement for mix in mixes for share in mix]
    placements += [dict.fromkeys(cluster.graph.atoms, node) for node in cluster.nodes]
    placements += [found.placement] if found.placement is not None else []
    kept = [mix for mix in map(alone, placements) if not asked.broken(mix)]
    mixed = [_best_shares(asked, [mix[0] for mix in kept])] if kept else []
    return [*kept, *(mix for mix in mixed if not asked.broken(mix))]


def _best_shares(asked: Asked, shares: Sequence[Share]) -> Mix:
    """Find the shares of placements with the greatest throughput; memory is not considered."""
    cluster = asked.cluster
    tables = LoadTables(cluster.problem)
    pool = PlacementPool(tables, rows_of(tables, None, {}))
    for share in shares:
        pool.add(tuple(to_choice(cluster.problem, cluster.decisions(share.placement))))
    total = pool.solve()
    named = {tuple(to_choice(cluster.problem, cluster.decisions(s.placement))): s for s in shares}
    return tuple(
        replace(named[choice], weight=float(rate) / total)
        for choice, rate in zip(pool.choices, pool.rates, strict=True)
        if rate > _LEAST_SHARE * total
    )
