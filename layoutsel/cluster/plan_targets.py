"""One distribution per target: solved, compared with those of the other targets, and described."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from layoutsel.cluster.asked import Asked, TargetAnswer, check_target
from layoutsel.cluster.metrics import METRICS, Mix, Predictor, Share
from layoutsel.cluster.problem import Cluster
from layoutsel.cluster.routes import routes_of
from layoutsel.cluster.segments import Distribution, Metric, Route, Segment, Target
from layoutsel.cluster.targets import TIME_LIMIT_S, answer, best_of
from layoutsel.planning.problem import ProblemError

_LOG = logging.getLogger(__name__)

_CHANGES = 0.3
"""Share of a target's time, in addition, for the values with single segments elsewhere."""
_SPARE = 0.15
"""Share of a target's time for the plans without single nodes."""


@dataclass(frozen=True, kw_only=True)
class _Solved:
    """A target with its answer."""

    asked: Asked
    answer: TargetAnswer
    time_s: float


def plan_targets(
    cluster: Cluster,
    targets: Sequence[Target],
    *,
    time_limit_s: float = TIME_LIMIT_S,
    spares: bool = True,
) -> tuple[Distribution, ...]:
    """Make one distribution for each target, each with all metrics.

    A mix that was found for one target serves another if it is better there. All metrics get a
    bound, also those that are no target.

    Parameters
    ----------
    cluster
        Nodes and network.
    targets
        Targets with their limits.
    time_limit_s
        Time limit of each target, seconds; a third of it for the bounds of all other metrics.
    spares
        True to plan without each single node as well.

    Raises
    ------
    ProblemError
        If a target is unknown, or no distribution keeps its limits.
    """
    for target in targets:
        check_target(target, cluster)
    predictor = Predictor(cluster)
    unlimited = _unlimited(predictor, targets, time_limit_s)
    solved = []
    for target in targets:
        if target.limits:
            solved.append(_solve(predictor, target, (1 - _SPARE) * time_limit_s))
        else:
            solved.append(unlimited[target.name])
    mixes = [one.answer.mix for one in (*solved, *unlimited.values())]
    bounds = {name: one.answer.bound for name, one in unlimited.items()}
    return tuple(
        _distribution(one, [one.answer.mix, *mixes], bounds, spares, time_limit_s) for one in solved
    )


def _unlimited(
    predictor: Predictor, targets: Sequence[Target], time_limit_s: float
) -> dict[str, _Solved]:
    """Answer all metrics without limits, by name."""
    wanted = {target.name for target in targets if not target.limits}
    others = max(len(predictor.metrics) - len(wanted), 1)
    return {
        name: _solve(
            predictor,
            Target(name=name),
            (1 - _SPARE) * time_limit_s if name in wanted else time_limit_s / 3 / others,
        )
        for name in predictor.metrics
    }


def _solve(predictor: Predictor, target: Target, time_limit_s: float) -> _Solved:
    started = time.monotonic()
    asked = Asked(predictor, target, started + time_limit_s)
    found = answer(asked)
    return _Solved(asked=asked, answer=found, time_s=time.monotonic() - started)


def _distribution(
    solved: _Solved,
    mixes: Sequence[Mix],
    bounds: Mapping[str, float],
    spares: bool,
    time_limit_s: float,
) -> Distribution:
    asked = solved.asked
    mix = best_of(asked, mixes)
    own = {**bounds, asked.target.name: solved.answer.bound}
    routes = routes_of(asked.predictor, mix)
    if len(routes) == 1:
        deadline = time.monotonic() + _CHANGES * time_limit_s
        segments = _with_alternatives(asked, mix, routes[0].segments, deadline)
        routes = (replace(routes[0], segments=segments),)
    return Distribution(
        target=asked.target,
        routes=routes,
        metrics=metrics_of(asked.predictor, mix, own),
        solver=solved.answer.solver,
        time_s=solved.time_s,
        without=_without(asked, routes, _SPARE * time_limit_s) if spares else {},
    )


def metrics_of(predictor: Predictor, mix: Mix, bounds: Mapping[str, float]) -> dict[str, Metric]:
    """Predict all metrics of a mix, with their bounds."""
    found = {}
    for name, entry in predictor.metrics.items():
        value, bound = entry.value(predictor, mix), bounds.get(name)
        found[name] = Metric(
            unit=entry.unit,
            predicted=value,
            bound=None if bound is None else entry.certified(value, bound),
            spread=entry.spread(predictor, mix),
        )
    return found


def _with_alternatives(
    asked: Asked, mix: Mix, segments: Sequence[Segment], deadline: float
) -> tuple[Segment, ...]:
    """Add the value of the target if single segments ran elsewhere."""
    (share,) = mix
    entry = METRICS[asked.target.name]
    done = []
    for segment in segments:
        elsewhere = {}
        for node in asked.cluster.nodes:
            if node != segment.node:
                moved = {**share.placement, **dict.fromkeys(segment.atoms, node)}
                other = (Share(weight=1.0, placement=moved),)
                if time.monotonic() < deadline and not asked.broken(other):
                    elsewhere[node] = entry.value(asked.predictor, other)
        done.append(replace(segment, elsewhere=elsewhere))
    return tuple(done)


def _without(
    asked: Asked, routes: Sequence[Route], time_limit_s: float
) -> dict[str, tuple[Route, ...]]:
    """Plan without each single node that is not the origin."""
    cluster = asked.predictor.cluster
    others = [node for node in cluster.nodes if node != cluster.topology.origin]
    used = {segment.node for route in routes for segment in route.segments}
    found = {}
    for node in others:
        left = cluster.without(node)
        if not used - set(left.nodes):
            found[node] = tuple(routes)  # the node, and those behind it, run nothing
            continue
        predictor = Predictor(left)
        deadline = time.monotonic() + time_limit_s / len(others)
        try:
            spare = answer(Asked(predictor, asked.target, deadline))
        except ProblemError as reason:
            _LOG.warning("no distribution for %s without %s: %s", asked.target.label, node, reason)
            continue
        found[node] = routes_of(predictor, spare.mix)
    return found
