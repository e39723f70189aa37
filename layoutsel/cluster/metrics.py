"""Metrics of distributions: latency, throughput, energy and memory, each with its uncertainty."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property

from layoutsel.cluster.energy import UJ, energy_problem, without_power
from layoutsel.cluster.memory import peaks
from layoutsel.cluster.problem import Cluster, Placement
from layoutsel.cluster.segments import UNITS
from layoutsel.planning.loads import loads
from layoutsel.planning.makespan import Schedule, Scheduler
from layoutsel.planning.problem import PlanningProblem

LATENCY, THROUGHPUT, ENERGY, MEMORY = "latency", "throughput", "energy", "memory"
"""Names of the metrics."""
_ROUNDING = 1e-5
"""Relative error of values and bounds."""
HZ = 1e6
"""A request per microsecond, hertz."""


@dataclass(frozen=True, kw_only=True)
class Share:
    """A placement and its share of the requests."""

    weight: float
    """Share of the requests, 0 to 1."""
    placement: Placement
    """Node of each atom."""


Mix = tuple[Share, ...]
"""Placements whose shares add up to 1."""


def alone(placement: Placement) -> Mix:
    """Mix of one placement."""
    return (Share(weight=1.0, placement=placement),)


@dataclass(frozen=True, kw_only=True)
class MetricEntry:
    """One entry of the table of metrics."""

    name: str
    """Name of the metric, and of the target to optimise it."""
    about: str
    """Short description for the user."""
    value: Callable[[Predictor, Mix], float]
    """Predicted value of a mix."""
    spread: Callable[[Predictor, Mix], float]
    """Uncertainty of the value, half the interquartile range."""
    maximised: bool = False
    """True if larger values are better."""
    limits_each: bool = False
    """True if a limit concerns each placement of a mix, and not the mix as a whole."""

    @property
    def unit(self) -> str:
        """Unit of the values."""
        return UNITS[self.name]

    def is_better(self, one: float, other: float) -> bool:
        """True if a value is better than another one."""
        return one > other if self.maximised else one < other

    def certified(self, value: float, bound: float) -> float:
        """Bound on a value that was found; the value itself if only rounding contradicts it."""
        if not self.is_better(value, bound):
            return bound
        assert abs(value - bound) <= _ROUNDING * abs(value) + 1e-9, (
            f"{bound} {self.unit} is no bound on the {self.name} {value} {self.unit}"
        )
        return value

    def keeps(self, value: float, limit: float) -> bool:
        """True if a value keeps a limit: at most, or for throughput at least the limit."""
        slack = 1e-9 * abs(limit)
        return value >= limit - slack if self.maximised else value <= limit + slack


class Predictor:
    """Values of metrics for the mixes of one cluster; schedules are made once.

    Parameters
    ----------
    cluster
        Nodes and network.
    """

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self._schedules: dict[tuple[str, ...], Schedule] = {}

    @cached_property
    def metrics(self) -> Mapping[str, MetricEntry]:
        """Metrics that are known: without the power of all nodes, energy is not."""
        lacking = without_power(self.cluster)
        return {name: one for name, one in METRICS.items() if name != ENERGY or not lacking}

    @cached_property
    def energy(self) -> PlanningProblem:
        """Problem with energies, microjoules, in place of times."""
        return energy_problem(self.cluster)

    @cached_property
    def scheduler(self) -> Scheduler:
        """Schedules of the placements."""
        return Scheduler(self.cluster.problem)

    def values(self, mix: Mix) -> dict[str, float]:
        """Predict all metrics of a mix."""
        return {name: one.value(self, mix) for name, one in self.metrics.items()}

    def schedule(self, placement: Placement) -> Schedule:
        """Schedule one request."""
        key = tuple(placement[atom] for atom in self.cluster.graph.atoms)
        if key not in self._schedules:
            decisions = self.cluster.decisions(placement)
            self._schedules[key] = self.scheduler.schedule(decisions)
        return self._schedules[key]

    def latency_us(self, placement: Placement) -> float:
        """Time of one request, microseconds."""
        return self.schedule(placement).makespan_us + self.cluster.routes.engine.request_us

    def loads_us(self, mix: Mix) -> dict[str, float]:
        """Time for which a request occupies each resource, on average over a mix, microseconds."""
        found: dict[str, float] = {}
        for share in mix:
            busy = loads(self.cluster.problem, self.cluster.decisions(share.placement))
            for name, us in busy.items():
                found[name] = found.get(name, 0.0) + share.weight * us
        return found

    def sum_of(self, problem: PlanningProblem, mix: Mix) -> float:
        """Sum of the prices of `problem`, on average over a mix."""
        return sum(
            share.weight * problem.cost(self.cluster.decisions(share.placement)).total_us
            for share in mix
        )

    def sum_spread(self, problem: PlanningProblem, mix: Mix) -> float:
        """Uncertainty of :meth:`sum_of`: that of atoms and messages, and the one they share."""
        return math.hypot(
            *(share.weight * self._spread(problem, share.placement) for share in mix),
            problem.shared_spread * self.sum_of(problem, mix),
        )

    def _spread(self, problem: PlanningProblem, placement: Placement) -> float:
        decisions = self.cluster.decisions(placement)
        atoms = [node.option(decisions[node.id]).spread_us for node in problem.nodes]
        sent: dict[tuple[str, str], float] = {}
        for one in problem.cost(decisions).boundaries:
            if one.kind == "copy":
                ends = self.cluster.node_in(one.source), self.cluster.node_in(one.destination)
                # Errors of a route's rate are common to all of its messages.
                sent[ends] = sent.get(ends, 0.0) + one.cost_us
        messages = [self.cluster.routes.route(*ends).spread * us for ends, us in sent.items()]
        return math.hypot(*atoms, *messages)


def _latency(predictor: Predictor, mix: Mix) -> float:
    return sum(share.weight * predictor.latency_us(share.placement) for share in mix)


def _latency_spread(predictor: Predictor, mix: Mix) -> float:
    return predictor.sum_spread(predictor.cluster.problem, mix)


def _throughput(predictor: Predictor, mix: Mix) -> float:
    return HZ / max(*predictor.loads_us(mix).values(), 1e-9)


def _throughput_spread(predictor: Predictor, mix: Mix) -> float:
    problem = predictor.cluster.problem
    relative = predictor.sum_spread(problem, mix) / max(predictor.sum_of(problem, mix), 1e-9)
    return relative * _throughput(predictor, mix)


def _energy(predictor: Predictor, mix: Mix) -> float:
    return UJ * predictor.sum_of(predictor.energy, mix)


def _energy_spread(predictor: Predictor, mix: Mix) -> float:
    return UJ * predictor.sum_spread(predictor.energy, mix)


def _memory(predictor: Predictor, mix: Mix) -> float:
    return max(peaks(predictor.cluster, [share.placement for share in mix]).values())


def _certain(predictor: Predictor, mix: Mix) -> float:
    del predictor, mix
    return 0.0


METRICS: Mapping[str, MetricEntry] = {
    entry.name: entry
    for entry in (
        MetricEntry(
            name=LATENCY,
            about="time of one request, branches at once where nodes allow it",
            value=_latency,
            spread=_latency_spread,
            limits_each=True,
        ),
        MetricEntry(
            name=THROUGHPUT,
            about="requests per second when many are in progress",
            value=_throughput,
            spread=_throughput_spread,
            maximised=True,
        ),
        MetricEntry(
            name=ENERGY,
            about="energy of one request: busy processors, and bytes on links",
            value=_energy,
            spread=_energy_spread,
            limits_each=True,
        ),
        MetricEntry(
            name=MEMORY,
            about="largest memory of a node: weights, and live tensors of one request",
            value=_memory,
            spread=_certain,
        ),
    )
}
"""Metrics by name."""
