"""The Python API: one call from a model to a compiled module, or its steps one by one."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, replace
from datetime import datetime, timezone
from os import PathLike
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import onnx
import tvm

from layoutsel.building.build import Lowered, generate_code
from layoutsel.cost.machine import this_machine
from layoutsel.planning import documents
from layoutsel.planning.alternatives import single_plans, top_plans, unit_plans
from layoutsel.planning.explain import explain
from layoutsel.planning.plan import Measured, Plan, check_fits, make_plan
from layoutsel.planning.problem import PlanningProblem
from layoutsel.planning.solve import Solution
from layoutsel.runtime.compiled import CompiledModel
from layoutsel.runtime.race import race
from layoutsel.runtime.samples import random_inputs
from layoutsel.runtime.signature import Signature
from layoutsel.runtime.verify import (
    Check,
    compare,
    onnx_softmaxes,
    onnxruntime_reference,
    tolerance_of,
    tvm_reference,
)
from layoutsel.session import MEASURE_BUDGET_S, OnProgress, Session, all_versions
from tvm_passes.decision import Decision, SubgraphId
from tvm_passes.errors import LayoutselError
from tvm_passes.expose_logits import ExposeLogits

logger = logging.getLogger(__name__)

Model: TypeAlias = str | PathLike[str] | onnx.ModelProto | tvm.IRModule

TOP_PLANS = 2
"""Plans measured beside the chosen one…"""
UNIT_PLANS = 1
"""… the best of those that stay on one unit, as what crossing between units costs is the hardest to predict …"""
BASELINES = 3
"""… and single-decision baselines, the predicted best first."""
GENERATORS = 2
"""Plans for which code is generated at once: LLVM uses one core for each."""
DROP_AFTER = 4
"""Turns of the race after which the clearly slower ones are left out."""
TIE = 0.01
"""A rival must be faster than the chosen plan by more than this share of its time to replace it."""


def optimize(  # noqa: PLR0913 - the whole job has that many choices, each with a default
    model: Model,
    *,
    units: Sequence[str] | None = None,
    precision: str = "f32",
    threads: int | None = None,
    shapes: Mapping[str, tuple[int, ...]] | None = None,
    strategy: str = "joint",
    cost: str = "learned",
    measure_budget_s: float = MEASURE_BUDGET_S,
    cost_model: str | Path | None = None,
    pins: Sequence[str] = (),
    cache: str | Path | None = None,
    verify: bool = True,
    verify_speed: bool = True,
    progress: OnProgress | None = None,
    logs: str | Path | None = None,
) -> CompiledModel:
    """Plan and compile a model for this machine.

    Parameters
    ----------
    model
        Path of an ONNX file, a loaded ONNX model, a Relax module, or ``light:resnet50``,
        ``arch:mobilenet_v2`` and their like.
    units
        Compute units to choose from; every available one where None.
    precision
        ``f32``.
    threads
        Threads that the model will run on; all of this process's cores where None.
    shapes
        Shape of each input with a dynamic dimension.
    strategy
        ``joint``: unit and layout together. ``score``: unit by complexity score, then the layout.
    cost
        ``learned``: predicted by the model that ships with the package (or `cost_model`), measured where the cache has
        an answer. ``hybrid``: the same, and candidates whose uncertainty could change the plan are measured.
        ``measured``: every candidate is timed once per machine. ``roofline``: nothing but the machine is measured.
    measure_budget_s
        Seconds that ``hybrid`` measures for at most.
    cost_model
        Folder of a learned cost model (``layoutsel train``); the one of the package where None.
    pins
        Decisions to honour, such as ``"conv_.*=onednn:NCHW16c"`` or ``"s7=cpu"``.
    cache
        File of measurements; a file in the user's cache folder where None.
    verify
        Whether to compare the results with a reference before handing the model over.
    verify_speed
        Whether to time the plan against the next best ones and single-unit baselines, and keep the fastest.
    progress
        Called after every measurement.
    logs
        Folder of tuning records, as ``layoutsel tune`` writes it; one in the user's cache folder where None.

    Raises
    ------
    LayoutselError
        If the model cannot be imported, a pin cannot be honoured, or the results are wrong.
    """
    session = Session.open(
        model,
        shapes=shapes,
        units=units,
        threads=threads,
        precision=precision,
        cache=cache,
        progress=progress,
        cost_model=cost_model,
        logs=logs,
    )
    problem = session.problem(cost, pins, measure_budget_s)
    chosen = session.plan(problem, strategy)
    return finish(session, chosen, problem if verify_speed else None, verify=verify)


def plan(
    model: Model,
    *,
    strategy: str = "joint",
    cost: str = "learned",
    measure_budget_s: float = MEASURE_BUDGET_S,
    pins: Sequence[str] = (),
    **options: Any,
) -> Plan:
    """Choose a decision for every sub-graph; parameters as of :func:`optimize`."""
    session = Session.open(model, **options)
    return session.plan(session.problem(cost, pins, measure_budget_s), strategy)


def compile_plan(
    model: Model, plan: Plan | str | PathLike[str], *, verify: bool = True, **options: Any
) -> CompiledModel:
    """Build what a plan says, without planning; `plan` is one, or its file.

    Raises
    ------
    PlanMismatch
        If the plan was made for another model or machine; names the first thing that differs.
    IllegalDecision
        If a unit declines what the plan, perhaps edited, decides for it.
    """
    chosen = plan if isinstance(plan, Plan) else Plan.load(Path(plan))
    options = {"threads": chosen.threads, **options}
    return build_as_planned(Session.open(model, **options), chosen, verify=verify)


def build_as_planned(session: Session, chosen: Plan, *, verify: bool = True) -> CompiledModel:
    """Build `chosen`, perhaps loaded and edited, for the model of `session`; errors as of :func:`compile_plan`."""
    check_fits(
        chosen,
        model_hash=session.model.content_hash,
        ids=[subgraph.id for subgraph in session.graph.subgraphs],
        machine=this_machine().fingerprint,
    )
    session.check_legal(chosen.decisions)
    return finish(session, chosen, None, verify=verify)


def finish(
    session: Session, chosen: Plan, problem: PlanningProblem | None, *, verify: bool = True
) -> CompiledModel:
    """Build `chosen`, or whichever of its rivals in `problem` turns out faster; verify what is handed over."""
    rivals = _rivals(chosen, problem) if problem is not None else {}
    if problem is not None and rivals:
        model = _fastest(session, chosen, rivals, problem)
    else:
        model = _compiled(session, chosen)
    if verify:
        checks = verify_model(session, model)
        model.header["checks"] = [asdict(check) for check in checks]
    return model


def verify_model(session: Session, model: CompiledModel) -> list[Check]:
    """Compare `model` with ONNX Runtime, or with stock TVM where there is no ONNX model or no ONNX Runtime.

    Raises
    ------
    VerificationError
        If an output is off by more than the precision allows.
    """
    inputs = random_inputs(model.inputs)
    source, tolerance = session.model.onnx, tolerance_of(session.model.module)
    expected = _onnxruntime_results(source, model, inputs) if source is not None else None
    if source is not None and expected is not None:
        return compare(
            model,
            inputs,
            expected,
            "ONNX Runtime",
            onnx_softmaxes(source),
            tolerance=tolerance,
            again=lambda: _onnxruntime_results(source, model, inputs, optimised=False),
        )
    module = ExposeLogits()(session.model.module)
    # Which of several outputs a softmax made is not known here: then all are held to the strict bound.
    sole = [signature.name for signature in model.outputs] if len(model.outputs) == 1 else []
    expected = tvm_reference(module, inputs)
    return compare(model, inputs, expected, "stock TVM", sole, tolerance=tolerance)


def _onnxruntime_results(
    source: onnx.ModelProto,
    model: CompiledModel,
    inputs: Sequence[np.ndarray],
    *,
    optimised: bool = True,
) -> list[np.ndarray] | None:
    """What ONNX Runtime computes; None where it is missing or refuses the model."""
    feed = {signature.name: value for signature, value in zip(model.inputs, inputs, strict=True)}
    try:
        return onnxruntime_reference(source, feed, optimised=optimised)
    except ImportError:
        logger.warning("ONNX Runtime is not installed: verifying against stock TVM, slowly")
    except Exception as error:
        reason = str(error).strip().splitlines()[0]
        logger.warning(
            "ONNX Runtime refuses the model (%s): verifying against stock TVM, which shares the import",
            reason,
        )
    return None


def _rivals(chosen: Plan, problem: PlanningProblem) -> dict[str, Mapping[SubgraphId, Decision]]:
    alternatives = [
        *top_plans(problem, TOP_PLANS + 1),
        *unit_plans(problem)[:UNIT_PLANS],
        *single_plans(problem)[:BASELINES],
    ]
    seen = [chosen.decisions]
    rivals = {}
    for alternative in alternatives:
        if dict(alternative.decisions) not in seen:
            seen.append(dict(alternative.decisions))
            rivals[alternative.name] = alternative.decisions
    return rivals


def _fastest(
    session: Session,
    chosen: Plan,
    rivals: Mapping[str, Mapping[SubgraphId, Decision]],
    problem: PlanningProblem,
) -> CompiledModel:
    plans = {"plan": chosen}
    for name, decisions in rivals.items():
        plans[name] = _plan_of(chosen, problem, decisions, name)
    models = _compiled_all(session, plans)
    inputs = random_inputs(models["plan"].inputs)
    calls = {name: rival.timed_call(inputs) for name, rival in models.items()}
    measured = race(calls, drop_after=DROP_AFTER)
    winner = min(measured, key=lambda name: measured[name].median_us)
    if measured[winner].median_us > (1 - TIE) * measured["plan"].median_us:
        winner = "plan"
    if winner != "plan":
        logger.warning(
            "the plan %r is faster than the chosen one: %.1f us against %.1f us; it is kept",
            winner,
            measured[winner].median_us,
            measured["plan"].median_us,
        )
        plans[winner] = _plan_of(chosen, problem, rivals[winner], winner, explained=True)
    return _with_measurements(models[winner], plans[winner], measured)


def _compiled_all(session: Session, plans: Mapping[str, Plan]) -> dict[str, CompiledModel]:
    """The chosen one of `plans`, called "plan", and those of its rivals that can be built."""
    generating: dict[str, Future[CompiledModel]] = {}
    models: dict[str, CompiledModel] = {}
    with ThreadPoolExecutor(GENERATORS) as generators:
        for name, plan in plans.items():
            with _doing_without(name):
                lowered = session.lower(plan.decisions)
                generating[name] = generators.submit(_generated, session, plan, lowered)
        for name, model in generating.items():
            with _doing_without(name):
                models[name] = model.result()
    return models


@contextlib.contextmanager
def _doing_without(name: str) -> Iterator[None]:
    """Warn of a rival that cannot be built; the chosen plan must be."""
    try:
        yield
    except LayoutselError as error:
        if name == "plan":
            raise
        logger.warning("the rival plan %r cannot be built: %s", name, error)


def _plan_of(
    chosen: Plan,
    problem: PlanningProblem,
    decisions: Mapping[SubgraphId, Decision],
    name: str,
    *,
    explained: bool = False,
) -> Plan:
    solution = Solution(
        decisions=decisions,
        cost_us=problem.cost(decisions).total_us,
        bound_us=chosen.bound_us,
        solver=chosen.solver,
        time_s=chosen.time_s,
    )
    return make_plan(
        problem,
        solution,
        strategy=name,
        machine=chosen.machine,
        versions=chosen.versions,
        threads=chosen.threads,
        score_cost_us=chosen.score_cost_us,
        explanation=explain(problem, decisions) if explained else None,
    )


def _with_measurements(
    model: CompiledModel, plan: Plan, measured: Mapping[str, Measured]
) -> CompiledModel:
    model.header["plan"] = documents.to_json(replace(plan, measured=dict(measured)))
    return model


def _compiled(session: Session, plan: Plan) -> CompiledModel:
    return _generated(session, plan, session.lower(plan.decisions))


def _generated(session: Session, plan: Plan, lowered: Lowered) -> CompiledModel:
    executable = generate_code(lowered.module, lowered.target)
    header = _header(session, plan, lowered)
    return CompiledModel(executable.jit(), lowered.weights, header, executable=executable)


def _header(session: Session, plan: Plan, lowered: Lowered) -> dict[str, Any]:
    def signatures(specs: Sequence[Any]) -> list[dict[str, Any]]:
        return [
            Signature(name=spec.name, shape=spec.shape, dtype=spec.dtype).to_json()
            for spec in specs
        ]

    fallbacks = {
        id_: str(decision)
        for id_, decision in lowered.decisions.items()
        if decision != plan.decisions[id_]
    }
    return {
        "schema_version": 1,
        "model": session.model.name,
        "model_hash": session.model.content_hash,
        "inputs": signatures(session.model.inputs),
        "outputs": signatures(session.model.outputs),
        "threads": session.threads,
        "units": sorted({decision.unit for decision in lowered.decisions.values()}),
        "features": list(this_machine().isa),
        "plan": documents.to_json(plan),
        "fallbacks": fallbacks,
        "calls": [list(call) for call in lowered.calls],
        "versions": all_versions(),
        "machine": str(this_machine()),
        "built": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }
