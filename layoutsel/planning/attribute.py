"""Attribution of a plan's prediction error to its parts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from layoutsel.planning.plan import Plan, PlannedSubgraph
from layoutsel.planning.problem import Boundary
from layoutsel.planning.residuals import (
    Ran,
    Residuals,
    SubgraphResidual,
    TracedRuns,
    TransformResidual,
)


def attribute(plan: Plan, observed: TracedRuns, measured_us: float) -> Residuals:
    """Attribute the difference between a plan's measured and predicted time to its parts.

    Parameters
    ----------
    plan
        Plan with its predictions.
    observed
        Traced runs of the plan.
    measured_us
        Time of a whole run, microseconds. The times of `observed` are scaled to it, as the machine
        may have had another speed then.
    """
    scale = observed.fit * measured_us / observed.whole_us
    return Residuals(
        predicted_us=plan.cost_us,
        measured_us=measured_us,
        runs=observed.runs,
        tracing_us=observed.traced_us - observed.whole_us,
        scale=scale,
        crossings_us=_crossings_us(plan),
        subgraphs=_subgraphs(plan.subgraphs, observed, scale),
        transforms=_transforms(plan.boundaries, observed.transforms, scale),
    )


def predicted_again(residuals: Residuals, plan: Plan) -> Residuals | None:
    """Replace the predictions in `residuals` by those of `plan`, the same plan at other prices.

    The result is None if it is another plan, which was not measured.
    """
    planned = {one.id: one for one in plan.subgraphs}
    if {one.id: one.decision for one in residuals.subgraphs} != plan.decisions:
        return None
    subgraphs = (
        replace(
            one,
            predicted_us=planned[one.id].cost_us,
            spread_us=planned[one.id].spread_us,
            source=planned[one.id].source,
        )
        for one in residuals.subgraphs
    )
    ran = {
        one.name: Ran(us=one.in_plan_us, spread_us=0.0, count=one.ran)
        for one in residuals.transforms
    }
    return replace(
        residuals,
        predicted_us=plan.cost_us,
        crossings_us=_crossings_us(plan),
        subgraphs=tuple(subgraphs),
        transforms=_transforms(plan.boundaries, ran, 1.0),
    )


def _crossings_us(plan: Plan) -> float:
    return sum(boundary.cost_us for boundary in plan.boundaries if boundary.kind != "transform")


def _subgraphs(
    planned: Sequence[PlannedSubgraph], observed: TracedRuns, scale: float
) -> tuple[SubgraphResidual, ...]:
    """Compare each sub-graph with its steps in the runs.

    If every step is known, a sub-graph without a step took no time: its unit merged it into others.
    """
    complete = set(observed.subgraphs) <= {one.id for one in planned}
    merging = {one.decision.unit for one in planned if one.id in observed.merged}
    found = []
    for one in planned:
        ran = observed.subgraphs.get(one.id)
        if ran is None and complete:
            ran = Ran(us=0.0, spread_us=0.0, count=0)
        vanished = ran is not None and ran.count == 0 and one.decision.unit in merging
        found.append(
            SubgraphResidual(
                id=one.id,
                decision=one.decision,
                predicted_us=one.cost_us,
                spread_us=one.spread_us,
                source=one.source,
                in_plan_us=scale * ran.us if ran else None,
                in_plan_spread_us=scale * ran.spread_us if ran else None,
                merged=one.id in observed.merged or vanished,
            )
        )
    return tuple(found)


def _transforms(
    boundaries: Sequence[Boundary], observed: Mapping[str, Ran], scale: float
) -> tuple[TransformResidual, ...]:
    """Compare transforms by their layouts, as a trace does not distinguish equal ones."""
    planned: dict[str, list[float]] = {}
    for boundary in boundaries:
        if boundary.kind == "transform":
            name = f"{boundary.source}>{boundary.destination}"
            planned.setdefault(name, []).append(boundary.cost_us)
    found = []
    for name in dict.fromkeys([*planned, *observed]):
        source, _, destination = name.partition(">")
        costs_us, ran = planned.get(name, []), observed.get(name)
        found.append(
            TransformResidual(
                source=source,
                destination=destination,
                predicted=len(costs_us),
                ran=ran.count if ran else 0,
                predicted_us=sum(costs_us),
                in_plan_us=scale * ran.us if ran else 0.0,
            )
        )
    return tuple(found)
