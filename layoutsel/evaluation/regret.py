"""Losses of plans from a cost model: their measured time against that of the best plan."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from layoutsel.building.workloads import tensor_spec
from layoutsel.core.workload import BoundaryTensor, Cost
from layoutsel.cost.place import HOST, Place
from layoutsel.cost.samples import BoundarySample, RecordedModel, RecordedNode, Sample
from layoutsel.cost.store import interpolate
from layoutsel.planning.hybrid import STABLE, WORTHWHILE, Refined, Tolerance, refine
from layoutsel.planning.prices import UnpricedBoundary, price_all
from layoutsel.planning.problem import Option, PlanningProblem, PricedSubgraph
from layoutsel.planning.solve import solve
from layoutsel.planning.strategies import choose
from tvm_passes.backends import BACKENDS
from tvm_passes.decision import Decision, SubgraphId
from tvm_passes.units.entry import HOST_UNIT

RANDOM_PLANS = 20
"""Number of random plans for each model."""
MEASURED_SHARE = 0.1
"""Share of all candidates that the hybrid may measure."""
MEASUREMENTS_PER_S = 2.3
"""Rate at which ``--cost auto`` measures; it may do so for its mode's budget of time."""

Key = tuple[str, Decision]
"""Workload key and decision of a candidate."""
Price = Callable[[RecordedNode, Decision], Cost | None]
"""Function that returns a candidate's cost; None for a candidate without one."""
PriceBoundary = Callable[[str, BoundaryTensor, str, str], float]
"""Function of kind, tensor, source and destination that returns microseconds."""


@dataclass(frozen=True, kw_only=True)
class Regret:
    """Losses of one model's plans, as fractions of the time of the best plan by measurements."""

    model: str
    """Name of the model."""
    cold: float
    """Loss with learned costs alone."""
    hybrid: float
    """Loss with learned costs and a few measurements."""
    hybrid_measured: float
    """Share of the candidates that the hybrid measured."""
    auto: float
    """Loss with learned costs, and measurements only while the expected loss is large."""
    auto_measured: float
    """Share of the candidates that were measured then."""
    random: float
    """Mean loss of :data:`RANDOM_PLANS` random plans."""
    score: float
    """Loss with units by complexity score, and measured layouts and boundaries."""
    roofline: float
    """Loss with roofline costs alone."""
    predicted: float
    """Predicted time of the plan with learned costs, relative to its time by measurements."""


class MeasuredBoundaries:
    """Boundary prices from samples: measured for equal shapes, else interpolated by size.

    Parameters
    ----------
    samples
        Measured boundaries of one machine.
    """

    def __init__(self, samples: Iterable[BoundarySample]) -> None:
        self._points: dict[tuple[str, str, str], dict[int, tuple[float, float]]] = {}
        self._exact: dict[tuple[tuple[str, str, str], tuple[int, ...]], float] = {}
        for sample in samples:
            pair = (sample.kind, sample.source, sample.destination)
            shape = sample.tensor.shape
            self._points.setdefault(pair, {})[sample.tensor.bytes] = (sample.us, sample.spread_us)
            self._exact[pair, shape] = sample.us

    def price(self, kind: str, tensor: BoundaryTensor, source: str, destination: str) -> float:
        """Price of a boundary, microseconds; 1 (a launch) if nothing was measured."""
        if kind == "crossing" and HOST in (source, destination):
            return 0.0
        pair = (kind, source, destination)
        exact = self._exact.get((pair, tensor.shape))
        if exact is not None:
            return exact
        points = [(size, *time) for size, time in sorted(self._points.get(pair, {}).items())]
        found = interpolate(points, tensor.bytes)
        return found.us if found else 1.0


def recorded_problem(
    model: RecordedModel,
    price: Price,
    boundary: PriceBoundary,
    score: Price | None = None,
) -> PlanningProblem:
    """Make the planning problem of a recorded model.

    Parameters
    ----------
    model
        The recorded model.
    price
        Costs of candidates; candidates without one are left out.
    boundary
        Prices of boundaries.
    score
        Complexity scores of candidates; none if None.
    """
    nodes = []
    for node in model.nodes:
        options = []
        for offer in node.offers:
            cost = price(node, offer.decision)
            if cost is None:
                continue
            scored = score(node, offer.decision) if score else None
            options.append(
                Option(
                    decision=offer.decision,
                    cost_us=cost.us,
                    spread_us=cost.spread_us,
                    source=cost.source,
                    in_layouts=offer.in_layouts,
                    out_layouts=offer.out_layouts,
                    score_us=scored.us if scored else None,
                )
            )
        nodes.append(PricedSubgraph(id=node.id, options=tuple(options)))
    return PlanningProblem(
        nodes=tuple(nodes),
        tensors=price_all(
            model.tensors, nodes, lambda unpriced: [_priced(boundary, one) for one in unpriced]
        ),
        model_name=model.name,
    )


def _priced(boundary: PriceBoundary, asked: UnpricedBoundary) -> float:
    """Price of a boundary, microseconds; 0 between units that share a runtime."""
    tensor = tensor_spec(asked.tensor)
    if asked.kind == "transform":
        return boundary("transform", tensor, *asked.names)
    end = _runtime if asked.kind == "crossing" else _copying_unit
    source, destination = end(asked.source), end(asked.destination)
    return boundary("crossing", tensor, source, destination) if source != destination else 0.0


def _runtime(place: Place) -> str:
    """Runtime of a place's unit."""
    return BACKENDS[place.unit].runtime if place.unit in BACKENDS else place.unit


def _copying_unit(place: Place) -> str:
    """Unit whose copies were measured for a place's memory."""
    return HOST_UNIT if place.device.is_host else place.placed_unit


def measured_costs(samples: Iterable[Sample]) -> dict[Key, Cost]:
    """Measured costs by workload and decision."""
    return {
        (sample.workload.key, sample.decision): Cost.timed(sample.us, sample.spread_us, "measured")
        for sample in samples
    }


def model_regret(
    model: RecordedModel,
    truth: Mapping[Key, Cost],
    truth_boundary: PriceBoundary,
    learned: Mapping[Key, Cost],
    learned_boundary: PriceBoundary,
    rooflines: Mapping[Key, Cost],
    measure_budget_s: float,
    seed: int = 0,
) -> Regret:
    """Plan a model from each kind of costs, and evaluate the plans with the true costs.

    Parameters
    ----------
    model
        The recorded model.
    truth
        Measured costs of the candidates.
    truth_boundary
        Measured prices of the boundaries.
    learned
        Predicted costs of the candidates.
    learned_boundary
        Predicted prices of the boundaries.
    rooflines
        Roofline costs of the candidates.
    measure_budget_s
        Time for measuring with ``--cost auto``, seconds.
    seed
        Seed of the random plans.
    """

    def looked_up(costs: Mapping[Key, Cost]) -> Price:
        return lambda node, decision: (
            costs.get((node.key, decision)) if (node.key, decision) in truth else None
        )

    real = recorded_problem(model, looked_up(truth), truth_boundary, looked_up(rooflines))
    predicted = recorded_problem(model, looked_up(learned), learned_boundary)
    by_roofline = recorded_problem(model, looked_up(rooflines), learned_boundary)
    best_us = solve(real).cost_us

    def loss(decisions: Mapping[SubgraphId, Decision]) -> float:
        return round(real.cost(decisions).total_us / best_us - 1, 5)

    cold = solve(predicted).decisions
    total = len(
        {(node.key, o.decision) for node in model.nodes for o in real.by_id[node.id].options}
    )
    hybrid = _measured(model, predicted, real, int(MEASURED_SHARE * total), STABLE)
    most = round(MEASUREMENTS_PER_S * measure_budget_s)
    auto = _measured(model, predicted, real, most, WORTHWHILE)
    rng = np.random.default_rng(seed)
    return Regret(
        model=model.name,
        cold=loss(cold),
        hybrid=loss(hybrid.solution.decisions),
        hybrid_measured=round(hybrid.measured / total, 4),
        auto=loss(auto.solution.decisions),
        auto_measured=round(auto.measured / total, 4),
        random=round(float(np.mean([loss(_random(real, rng)) for _ in range(RANDOM_PLANS)])), 4),
        score=loss(choose(real, strategy="score").decisions),
        roofline=loss(solve(by_roofline).decisions),
        predicted=round(predicted.cost(cold).total_us / real.cost(cold).total_us, 5),
    )


def _measured(
    model: RecordedModel,
    predicted: PlanningProblem,
    real: PlanningProblem,
    most: int,
    tolerance: Tolerance,
) -> Refined:
    """Plan after replacing at most `most` predictions by measurements, the most valuable first."""
    key_of = {node.id: node.key for node in model.nodes}
    left = [most]

    def measure(
        candidates: Sequence[tuple[SubgraphId, Decision]],
    ) -> dict[tuple[SubgraphId, Decision], Option | None]:
        taken = candidates[: left[0]]
        left[0] -= len(taken)
        return {
            (id_, decision): replace(real.by_id[id_].option(decision), source="measured")
            for id_, decision in taken
        }

    return refine(predicted, key_of, measure, tolerance=tolerance)


def _random(problem: PlanningProblem, rng: np.random.Generator) -> dict[SubgraphId, Decision]:
    return {
        node.id: node.options[int(rng.integers(len(node.options)))].decision
        for node in problem.nodes
    }
