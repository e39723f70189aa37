"""Simulation of a distribution by discrete events: queues at nodes and links, lost nodes, recovery.

It reads documents alone and knows no planner, so that it checks their predictions independently.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np

from layoutsel import documents
from layoutsel.cluster.courses import Compiler
from layoutsel.cluster.distribution import Distribution, Distributions
from layoutsel.cluster.simulated_attempt import Bar, Facilities
from layoutsel.cluster.simulator import Simulator
from layoutsel.cluster.statistics import Statistics
from layoutsel.cluster.topology import NODE
from tvm_passes.errors import LayoutselError

WARM_UP = 0.1
"""Share of the requests, at the start and at the end, that the throughput leaves out."""


@dataclass(frozen=True, kw_only=True)
class Load:
    """Requests of a simulation."""

    requests: int = 10_000
    """Number of requests."""
    rate_hz: float | None = None
    """Mean rate of arrival; None if a request arrives whenever one in progress has ended."""
    poisson: bool = True
    """True for exponential intervals between arrivals, False for equal ones."""
    in_flight: int | None = None
    """Most requests in progress, others wait at the origin; None without a limit."""
    seed: int = 0
    """Seed of the intervals."""


@dataclass(frozen=True, kw_only=True)
class Incident:
    """A node that is lost or joins again."""

    node: str
    """Id of the node."""
    at_us: float
    """Time from the start, microseconds."""
    joins: bool = False
    """True if the node joins again, False if it is lost."""


@dataclass(frozen=True, kw_only=True)
class Simulation:
    """Results of a simulation."""

    requests: int
    """Number of requests."""
    lost: int
    """Number of requests that no route was left for."""
    replayed: int
    """Number of requests that started again after a node was lost."""
    makespan_us: float
    """Time from the start until the last request ended, microseconds."""
    throughput_hz: float
    """Completed requests per second, without :data:`WARM_UP` at the start and at the end."""
    mean_us: float
    """Mean latency, microseconds."""
    p50_us: float
    """Median latency, microseconds."""
    p95_us: float
    """Latency that 5 % of the requests exceed, microseconds."""
    p99_us: float
    """Latency that 1 % of the requests exceed, microseconds."""
    recovery_us: float
    """99th percentile of the time from a loss until a replayed request ended, microseconds."""
    utilisation: Mapping[str, float]
    """Share of the time in which a resource was occupied, by resource."""
    peak_bytes: Mapping[str, float]
    """Most bytes of tensors on a node at one time, without weights, by node."""
    joules: float | None
    """Energy of work and links for one request; None if a busy node states no power."""
    arrivals_us: tuple[float, ...]
    """Time of arrival by request, microseconds."""
    ends_us: tuple[float | None, ...]
    """Time of completion by request, microseconds; None if lost."""
    bars: tuple[Bar, ...] = field(repr=False)
    """Occupations of resources within the window."""

    def summary(self) -> dict[str, Any]:
        """All but the requests and bars, as JSON's types; None for a figure of no request."""
        names = (one.name for one in fields(self))
        kept = (name for name in names if name not in ("arrivals_us", "ends_us", "bars"))
        values = {name: documents.to_json(getattr(self, name)) for name in kept}
        return {name: None if _is_unknown(value) else value for name, value in values.items()}


def _is_unknown(value: Any) -> bool:
    """True if a figure is that of no request."""
    return isinstance(value, float) and math.isnan(value)


def simulate(
    made: Distributions,
    distribution: Distribution,
    load: Load,
    *,
    statistics: Statistics | None = None,
    incidents: Sequence[Incident] = (),
    detection_us: float | None = None,
    window_us: tuple[float, float] = (0.0, 0.0),
) -> Simulation:
    """Simulate requests to a distribution.

    Nodes run segments in order of arrival; links divide their rate equally among messages. Requests
    take routes by deficit round robin. After a loss and `detection_us`, requests that needed the
    node start again on routes without it.

    Parameters
    ----------
    made
        Document of the distribution.
    distribution
        Distribution to simulate, one of `made`.
    load
        Requests.
    statistics
        State of nodes and links; None for the one that the distribution was made for.
    incidents
        Losses of nodes and their returns.
    detection_us
        Time from the loss of a node until requests take other routes, microseconds; None for three
        times its longest segment with its uncertainty.
    window_us
        Start and end of the time that :attr:`Simulation.bars` shows, microseconds.

    Raises
    ------
    LayoutselError
        If the load, an incident or a route is impossible.
    """
    _check(made, load, incidents)
    compiler = Compiler(made, statistics or made.statistics)
    simulator = Simulator(
        nodes=[node.id for node in made.topology.computing],
        courses=tuple(map(compiler.course, distribution.routes)),
        without={
            node: tuple(map(compiler.course, routes))
            for node, routes in distribution.without.items()
        },
        limit=load.in_flight,
        window_us=window_us,
    )
    for incident in sorted(incidents, key=lambda one: one.at_us):
        if incident.joins:
            simulator.join(incident.node, incident.at_us)
        else:
            until_us = _deadline(distribution, incident.node)
            until_us = until_us if detection_us is None else detection_us
            simulator.lose(incident.node, incident.at_us, until_us)
    chance = random.Random(load.seed)
    if load.rate_hz is None:
        simulator.run_closed(load.requests)
    else:
        mean_us = 1e6 / load.rate_hz
        simulator.run_open(
            chance.expovariate(1.0) * mean_us if load.poisson else mean_us
            for _ in range(load.requests)
        )
    return _summary(made, simulator)


def _deadline(distribution: Distribution, node: str) -> float:
    """Time after which a segment on `node` counts as lost, microseconds."""
    segments = (s for route in distribution.routes for s in route.segments if s.node == node)
    return 3 * max((segment.us + segment.spread_us for segment in segments), default=0.0)


def _check(made: Distributions, load: Load, incidents: Sequence[Incident]) -> None:
    if load.requests < 1:
        raise LayoutselError(f"requests: got {load.requests}; expected at least 1")
    if load.rate_hz is not None and not load.rate_hz > 0:
        raise LayoutselError(f"rate: got {load.rate_hz:g} Hz; expected a positive rate")
    if load.in_flight is not None and load.in_flight < 1:
        raise LayoutselError(f"requests in flight: got {load.in_flight}; expected at least 1")
    if load.rate_hz is None and load.in_flight is None:
        raise LayoutselError("no rate of arrival: expected a number of requests in flight instead")
    origin = made.topology.graph.origin
    others = [n.id for n in made.topology.nodes if n.kind == NODE and n.id != origin]
    for incident in incidents:
        if incident.node not in others:
            raise LayoutselError(
                f"cannot lose node {incident.node!r}: expected a node other than the origin, "
                f"one of {', '.join(others)}"
            )


def _summary(made: Distributions, simulator: Simulator) -> Simulation:
    ends = np.array([np.nan if end is None else end for end in simulator.ends_us])
    done = np.sort(ends[~np.isnan(ends)])
    latencies = (ends - np.array(simulator.arrivals_us))[~np.isnan(ends)]
    p50, p95, p99 = np.percentile(latencies, (50, 95, 99)) if len(done) else (np.nan,) * 3
    used = simulator.facilities
    makespan_us = float(done[-1]) if len(done) else used.clock.now_us
    return Simulation(
        requests=len(ends),
        lost=int(np.isnan(ends).sum()),
        replayed=simulator.replayed,
        makespan_us=makespan_us,
        throughput_hz=_throughput(done),
        mean_us=float(latencies.mean()) if len(done) else float("nan"),
        p50_us=float(p50),
        p95_us=float(p95),
        p99_us=float(p99),
        recovery_us=float(np.percentile(simulator.recoveries_us or [0.0], 99)),
        utilisation={name: one.busy_us / makespan_us for name, one in used.servers.items()},
        peak_bytes=dict(sorted(used.peak_bytes.items())),
        joules=_joules(made, used, len(done)),
        arrivals_us=tuple(simulator.arrivals_us),
        ends_us=tuple(simulator.ends_us),
        bars=tuple(used.bars),
    )


def _throughput(done_us: np.ndarray) -> float:
    """Completions per second between two quantiles of the completions, in order of time."""
    first = int(WARM_UP * len(done_us))
    last = len(done_us) - 1 - first
    if last <= first or done_us[last] == done_us[first]:
        return 1e6 * len(done_us) / float(done_us[-1]) if len(done_us) and done_us[-1] else 0.0
    return 1e6 * (last - first) / float(done_us[last] - done_us[first])


def _joules(made: Distributions, used: Facilities, requests: int) -> float | None:
    """Energy of a request: power of busy nodes for the time of their work, and links."""
    total = used.link_joules
    for node in made.topology.nodes:
        busy_us = sum(server.busy_us for server in used.processors.get(node.id, ()))
        if busy_us and node.power_w is None:
            return None
        if busy_us and node.power_w is not None:
            total += node.power_w.busy * busy_us / 1e6
    return total / requests if requests else None
