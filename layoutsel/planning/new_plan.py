"""Plans of solutions: prices and reasons of every decision, and the certificate of the whole."""

from __future__ import annotations

from collections.abc import Mapping

from layoutsel.planning.explain import Explanation
from layoutsel.planning.objectives import state
from layoutsel.planning.plan import SCHEMA_VERSION, Measured, Plan, PlannedSubgraph, Uncertainty
from layoutsel.planning.problem import PlanningProblem
from layoutsel.planning.solve import Solution
from layoutsel.planning.stages import uses_of
from layoutsel.planning.values import SUM


def make_plan(  # noqa: PLR0913 - the parts of a plan
    problem: PlanningProblem,
    solution: Solution,
    *,
    strategy: str,
    machine: str,
    versions: Mapping[str, str],
    threads: int | None = None,
    score_cost_us: float | None = None,
    measured: Mapping[str, Measured] | None = None,
    explanation: Explanation | None = None,
    uncertainty: Uncertainty | None = None,
) -> Plan:
    """Make a plan of `solution`, priced by `problem`, with reasons if an `explanation` is given."""
    cost = problem.cost(solution.decisions)
    bounds = {**solution.bounds, SUM: solution.bound_us}
    values, order = state(problem, solution.decisions, bounds)
    reads, results = uses_of((node.id for node in problem.nodes), problem.tensors)
    explained = explanation.subgraphs if explanation else ()
    alternatives = {subgraph.id: subgraph.alternatives for subgraph in explained}
    subgraphs = []
    for node in problem.nodes:
        option = node.option(solution.decisions[node.id])
        subgraphs.append(
            PlannedSubgraph(
                id=node.id,
                operators=node.operators,
                decision=option.decision,
                cost_us=option.cost_us,
                spread_us=option.spread_us,
                source=option.source,
                names=node.names,
                reads=reads[node.id],
                alternatives=alternatives.get(node.id, ()),
            )
        )
    return Plan(
        schema_version=SCHEMA_VERSION,
        model_name=problem.model_name,
        model_hash=problem.model_hash,
        machine=machine,
        threads=threads,
        versions=dict(versions),
        strategy=strategy,
        solver=solution.solver,
        time_s=solution.time_s,
        objective=problem.objective,
        values=values,
        score_cost_us=score_cost_us,
        subgraphs=tuple(subgraphs),
        boundaries=cost.boundaries,
        declines=tuple(decline for node in problem.nodes for decline in node.declines),
        results=results,
        gains=explanation.gains if explanation else None,
        uncertainty=uncertainty,
        exact=explanation.exact if explanation else False,
        measured=dict(measured or {}),
        order=order,
        shared_spread=problem.shared_spread,
    )
