"""Check that a plan, loaded or edited, fits the present model and machine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from layoutsel.planning.old_plans import renewal_of
from layoutsel.planning.plan import Plan
from layoutsel.planning.problem import PlanningProblem
from layoutsel.planning.stages import check_complete
from tvm_passes.decision import SubgraphId
from tvm_passes.errors import LayoutselError


class PlanMismatch(LayoutselError):
    """A plan for another model, machine or set of candidates."""


class ModelBound(Protocol):
    """Something that was made for one model."""

    @property
    def model_name(self) -> str:
        """Name of the model."""
        ...

    @property
    def model_hash(self) -> str:
        """Hash of the model."""
        ...


def check_model(
    made: ModelBound, model_hash: str, *, what: str = "the plan", advice: str = "Plan again"
) -> None:
    """Reject something that was made for another model.

    Parameters
    ----------
    made
        Plan, or a document with plans.
    model_hash
        Hash of the present model.
    what
        Name of `made`, for error messages.
    advice
        Way out, for error messages.

    Raises
    ------
    PlanMismatch
        If the hashes differ.
    """
    if made.model_hash != model_hash:
        raise PlanMismatch(
            f"{what} is of another model, {made.model_name}: got the hash {made.model_hash}; "
            f"expected {model_hash}. {advice}"
        )


def check_fits(
    plan: Plan,
    *,
    model_hash: str,
    ids: Sequence[SubgraphId],
    machine: str | None = None,
    problem: PlanningProblem | None = None,
) -> None:
    """Reject a plan for another model, machine or set of candidates.

    Parameters
    ----------
    plan
        The plan, possibly loaded and edited.
    model_hash
        Hash of the present model.
    ids
        Sub-graphs of the present model.
    machine
        Fingerprint of this machine; None to accept a plan of any machine.
    problem
        Problem whose candidates must include every decision; None to skip this check.

    Raises
    ------
    PlanMismatch
        If the plan does not fit; the message names the first difference.
    IllegalDecision
        If a decision is not a candidate, or the stages do not hold every sub-graph once.
    """
    check_model(plan, model_hash)
    wanted = set(ids)
    for id_ in plan.decisions:
        if id_ not in wanted:
            raise PlanMismatch(
                f"the plan decides sub-graph {id_}, which the model does not have."
                f"{renewal_of(plan.decisions)}"
            )
    for id_ in ids:
        if id_ not in plan.decisions:
            raise PlanMismatch(
                f"the plan has no decision for sub-graph {id_} of the model."
                f"{renewal_of(plan.decisions)}"
            )
    if machine is not None and plan.machine != machine:
        raise PlanMismatch(
            f"the plan is for another machine: got {plan.machine}, expected {machine}. "
            f"Plan again, or accept it with --allow-foreign-plan "
            f"(compile_plan: allow_foreign_plan=True)"
        )
    if problem is not None:
        problem.cost(plan.decisions)
    if plan.stages:
        check_complete(plan.stages, plan.reads, plan.results)
