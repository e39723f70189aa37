"""Attribution of a plan's prediction error to its parts, and its record in the store."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from layoutsel.compile.session import Session
from layoutsel.cost import residuals as rows
from layoutsel.cost.residuals import ResidualRow
from layoutsel.cost.store import Store
from layoutsel.planning.attribute import attribute
from layoutsel.planning.plan import Plan
from layoutsel.planning.residuals import Residuals
from layoutsel.runtime.compiled import CompiledModel
from layoutsel.runtime.observe import observe


def residuals_of(
    session: Session, model: CompiledModel, plan: Plan, inputs: Sequence[np.ndarray]
) -> Residuals | None:
    """Observe a run of `model` and attribute the prediction error of its plan to the parts.

    The errors are stored. A plan without a measurement of the whole gives None.

    Parameters
    ----------
    session
        Session of the model.
    model
        Model built from `plan`.
    plan
        Plan with its own measurement.
    inputs
        Checked inputs of the model.
    """
    measured = plan.own_measurement
    if measured is None:
        return None
    residuals = attribute(plan, observe(model, inputs), measured.median_us)
    with Store(session.context, session.options.cache, announce=False) as store:
        for row in _rows(session, model, plan, residuals):
            store.put_residual(row)
    return residuals


def _rows(
    session: Session, model: CompiledModel, plan: Plan, residuals: Residuals
) -> Iterator[ResidualRow]:
    keys = {subgraph.id: subgraph.structural_hash for subgraph in session.graph.subgraphs}
    measured = plan.own_measurement
    yield ResidualRow(
        kind=rows.PLAN,
        model=plan.model_hash,
        name=plan.model_name,
        predicted_us=residuals.predicted_us,
        spread_us=plan.spread_us,
        in_plan_us=residuals.measured_us,
        in_plan_spread_us=measured.spread_us if measured else 0.0,
        parts=residuals.parts,
    )
    for subgraph in residuals.subgraphs:
        # A fallback runs another decision than the predicted one.
        if subgraph.in_plan_us is not None and subgraph.id not in model.header["fallbacks"]:
            yield ResidualRow(
                kind=rows.SUBGRAPH,
                model=plan.model_hash,
                name=subgraph.id,
                key=keys[subgraph.id],
                decision=str(subgraph.decision),
                predicted_us=subgraph.predicted_us,
                spread_us=subgraph.spread_us,
                source=subgraph.source,
                in_plan_us=subgraph.in_plan_us,
                in_plan_spread_us=subgraph.in_plan_spread_us or 0.0,
                merged=subgraph.merged,
            )
    for transform in residuals.transforms:
        yield ResidualRow(
            kind=rows.TRANSFORM,
            model=plan.model_hash,
            name=transform.name,
            predicted_us=transform.predicted_us,
            in_plan_us=transform.in_plan_us,
        )
