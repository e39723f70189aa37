"""An objective from outside the package: the bytes that layout transforms and copies move."""

from __future__ import annotations

from dataclasses import replace

from layoutsel.planning.objectives import Answer, Assessed, Objective
from layoutsel.planning.problem import PlanningProblem
from layoutsel.planning.solve import solve


def _assess(problem: PlanningProblem, decisions) -> Assessed:
    sizes = {tensor.name: tensor.bytes for tensor in problem.tensors}
    moved = [sizes[b.tensor] for b in problem.cost(decisions).boundaries if b.kind != "crossing"]
    return Assessed(value=float(sum(moved)))


def _in_bytes(problem: PlanningProblem) -> PlanningProblem:
    """The problem where nothing costs but transforms and copies, each its tensor's bytes."""
    nodes = tuple(
        replace(node, options=tuple(replace(o, cost_us=0.0) for o in node.options))
        for node in problem.nodes
    )
    tensors = tuple(
        replace(
            tensor,
            transform_us=dict.fromkeys(tensor.transform_us, float(tensor.bytes)),
            crossing_us=dict.fromkeys(tensor.crossing_us, 0.0),
            copy_us=dict.fromkeys(tensor.copy_us, float(tensor.bytes)),
        )
        for tensor in problem.tensors
    )
    return replace(problem, nodes=nodes, tensors=tensors, objective="sum")


def _solve(problem: PlanningProblem, strategy: str, time_limit_s: float) -> Answer:
    del strategy
    found = solve(_in_bytes(problem), time_limit_s=time_limit_s)
    return Answer.of(
        problem,
        found.decisions,
        bound=found.bound_us,
        solver=f"bytes by {found.solver}",
        time_s=found.time_s,
    )


def _bound(problem: PlanningProblem, time_limit_s: float) -> float:
    return solve(_in_bytes(problem), time_limit_s=time_limit_s).bound_us


OBJECTIVE = Objective(
    name="bytes",
    unit="B",
    about="bytes moved",
    assess=_assess,
    solvers={"planner": _solve},
    bound=_bound,
)
