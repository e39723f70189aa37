"""The Python API: one call from a model to a compiled module, or its steps one by one."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from os import PathLike
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import onnx
import tvm

from layoutsel.compiling import compiled
from layoutsel.cost.machine import this_machine
from layoutsel.planning.plan import Plan, check_fits
from layoutsel.planning.problem import PlanningProblem
from layoutsel.rivals import fastest
from layoutsel.runtime.compiled import CompiledModel
from layoutsel.runtime.samples import random_inputs
from layoutsel.runtime.verify import (
    Check,
    compare,
    onnx_softmaxes,
    onnxruntime_reference,
    tolerance_of,
    tvm_reference,
)
from layoutsel.session import MEASURE_BUDGET_S, OnProgress, Session
from tvm_passes.expose_logits import ExposeLogits

logger = logging.getLogger(__name__)

Model: TypeAlias = str | PathLike[str] | onnx.ModelProto | tvm.IRModule


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
    model = compiled(session, chosen) if problem is None else fastest(session, chosen, problem)
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
