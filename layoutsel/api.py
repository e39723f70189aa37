"""Python API: one call from a model to a compiled module, and its steps one by one."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from os import PathLike
from pathlib import Path
from typing import Any, ParamSpec, TypeAlias, TypeVar

import onnx
import tvm

from layoutsel.compile.build_best import as_planned, finish
from layoutsel.compile.calibration import calibrate_first
from layoutsel.compile.fallback import with_fallback
from layoutsel.compile.generic import offered
from layoutsel.compile.legality import check_legal
from layoutsel.compile.make_plan import best_plan, priced_problem
from layoutsel.compile.options import TIME_LIMIT_S, OnProgress, Options
from layoutsel.compile.session import Session
from layoutsel.core.precision import check_budget, precision_mode
from layoutsel.device.machine import this_machine
from layoutsel.device.turns import Turn
from layoutsel.planning.check_fits import check_fits
from layoutsel.planning.objectives import objectives
from layoutsel.planning.plan import Plan
from layoutsel.runtime.compiled import CompiledModel
from layoutsel.units.base import with_default_units
from tvm_passes.limits import ImportLimits

logger = logging.getLogger(__name__)

Model: TypeAlias = str | PathLike[str] | onnx.ModelProto | tvm.IRModule
"""A path of an ONNX file, a name such as ``light:resnet50``, an ONNX model or a Relax module."""

_P = ParamSpec("_P")
_R = TypeVar("_R")

_turn = Turn("compiled a model", fork_waits_s=0.0)
"""Lock of import, planning and building: all threads share one stack of TVM's block builders."""


def _one_at_a_time(function: Callable[_P, _R]) -> Callable[_P, _R]:
    """Serialise calls of `function` from several threads."""

    @wraps(function)
    def in_turn(*args: _P.args, **options: _P.kwargs) -> _R:
        with _turn:
            return function(*args, **options)

    return in_turn


@_one_at_a_time
def optimize(  # noqa: PLR0913 - the whole job has that many choices, each with a default
    model: Model,
    *,
    units: Sequence[str] | None = None,
    precision: str = "f32",
    max_rel_error: float | None = None,
    calib: str | Path | None = None,
    threads: int | None = None,
    shapes: Mapping[str, tuple[int, ...]] | None = None,
    strategy: str = "joint",
    cost: str = "auto",
    measure_budget_s: float | None = None,
    cost_model: str | Path | None = None,
    calibrate: bool = True,
    pins: Sequence[str] = (),
    cache: str | Path | None = None,
    verify: bool = True,
    verify_speed: bool = True,
    progress: OnProgress | None = None,
    logs: str | Path | None = None,
    fallback: str | None = None,
    objective: str | None = None,
    parallel: bool = False,
    time_limit_s: float = TIME_LIMIT_S,
    memory_limit_mb: float | None = None,
    allow_external_links: bool = False,
    limits: ImportLimits | None = None,
) -> CompiledModel:
    """Plan and compile a model for this machine; calls from several threads run one by one.

    The run time is bounded. Adapting the cost model, once on a new machine, takes about a minute.
    After the import, each plan takes up to about ten seconds to solve. Measuring takes at most
    `measure_budget_s`, plus 60 s for the candidate that is being measured by then (``measured``:
    60 s for each candidate and boundary). Racing takes `time_limit_s`, plus the build or run that
    has begun by then. The build of the chosen plan takes at most ten minutes.
    Verification takes `time_limit_s` for the reference, and as much for the first run of a plan
    that was not raced.

    Parameters
    ----------
    model
        Path of an ONNX file, a loaded ONNX model, a Relax module, or a name such as
        ``light:resnet50``, ``arch:mobilenet_v2`` or ``zoo:resnet34``.
    units
        Compute units to choose from; every available one if None.
    precision
        ``f32``: f32 arithmetic only. ``f32-grade``: also products of pairs of bfloat16, about as
        exact. ``bf16``: also bfloat16. ``auto``: all three, as fast as `max_rel_error` allows.
        Sensitive operators (softmax, normalisations, the last product) stay f32 except with
        ``auto``.
    max_rel_error
        With ``auto``, the largest relative L2 error of an output or its logits; 1e-3 if None.
    calib
        An ``.npz`` file with one array per input, samples along the first axis, to measure errors
        on; a seeded random sample if None.
    threads
        Threads that the model will run on; all of this process's cores if None.
    shapes
        Shape of each input with a dynamic dimension.
    strategy
        ``joint``: unit and layout together. ``score``: unit by complexity score, then the layout.
    cost
        ``learned``: predicted by the model that ships with the package (or `cost_model`), measured
        where the cache has an answer. ``hybrid``: the same, and candidates whose uncertainty could
        change the plan are measured. ``auto``: as ``hybrid``, but only while the uncertainty is
        expected to cost more than 2 % of the plan's time and 20 µs. ``measured``: every candidate
        is timed once per machine. ``roofline``: computed from the machine's peak rates alone.
    measure_budget_s
        Time limit for measuring with ``auto`` and ``hybrid``, and with ``learned`` what it has no
        data for, seconds; if None, 20 for f32 and 60 for other precisions.
    cost_model
        Folder of a learned cost model (``layoutsel train``); the package's own if None.
    calibrate
        On a machine that the cost model has not seen, adapt it first: once, about a minute.
    pins
        Decisions to honour, such as ``"conv_.*=onednn:NCHW16c"`` or ``"conv2d_3f2a9c=cpu"``.
    cache
        File of measurements; a file in the user's cache folder if None.
    verify
        Compare the results with a reference before handing the model over.
    verify_speed
        Time the plan against the next best ones and single-unit baselines, and keep the fastest.
    progress
        Called after every measurement.
    logs
        Folder of tuning records that ``layoutsel tune`` wrote; one in the user's cache folder if
        None.
    fallback
        ``cpu``: continue without a device that is missing or fails, with warnings. The model then
        holds a second plan for the host's units alone, which takes over if a device is missing or
        fails later.
    objective
        ``sum``: the time of all sub-graphs and boundaries, one after the other. ``makespan``: as
        `parallel`. ``within-error``: as precision ``auto``. Other packages add further ones. If
        None, the one that the other options ask for.
    parallel
        If True, host and devices work at the same time, and the plan minimises the time until all
        are done instead of the sum.
    time_limit_s
        Time limit for planning once the candidates are priced, for racing plans, and for each step
        of verification (the reference, a run), seconds. A plan that takes all of it is not
        explained.
    memory_limit_mb
        Memory that compilation may use in addition to that of the process before the import,
        megabytes; three times the weights plus 225 MB if None. Plans that do not fit in memory
        together with the fastest one are not raced.
    allow_external_links
        If True, symbolic links among a file's external data may lead anywhere. Otherwise they must
        stay in the file's folder; if the file is itself a link, also in the folder of its target.
    limits
        Limits of the import (bytes of a tensor and of computed constants, nodes, depth, seconds);
        the defaults of :class:`layoutsel.ImportLimits` if None.

    Returns
    -------
    CompiledModel
        The compiled module with its plan.

    Raises
    ------
    LayoutselError
        If the model cannot be imported, a pin cannot be honoured, or the results are wrong.
    DeviceError
        If a device fails and there is no fallback.
    """
    options = Options(
        units=units,
        precision=precision,
        max_rel_error=max_rel_error,
        calib=calib,
        threads=threads,
        shapes=shapes,
        strategy=strategy,
        cost=cost,
        measure_budget_s=measure_budget_s,
        cost_model=cost_model,
        calibrate=calibrate,
        pins=pins,
        cache=cache,
        verify=verify,
        verify_speed=verify_speed,
        progress=progress,
        logs=logs,
        fallback=fallback,
        objective=objective,
        parallel=parallel,
        time_limit_s=time_limit_s,
        memory_limit_mb=memory_limit_mb,
        allow_external_links=allow_external_links,
        limits=limits,
    )
    check_budget(options.mode, verify=verify)

    def build(session: Session) -> CompiledModel:
        calibrate_first(session)
        problem = priced_problem(offered(session), cost, pins, measure_budget_s)
        chosen = best_plan(session, problem, strategy)
        return finish(session, chosen, problem, verify=verify, verify_speed=verify_speed)

    return with_fallback(Session.open(model, options), build)


@_one_at_a_time
def plan(model: Model, **options: Any) -> Plan:
    """Choose a decision for every sub-graph, without building.

    Parameters
    ----------
    model
        As for :func:`optimize`.
    **options
        As for :func:`optimize`, and `machine`: the file that describes another machine and its
        devices. The plan is then for that machine, and nothing is measured.
    """
    wanted = Options(**options)
    session = Session.open(model, wanted)
    problem = priced_problem(offered(session), wanted.cost, wanted.pins, wanted.measure_budget_s)
    return best_plan(session, problem, wanted.strategy)


@_one_at_a_time
def compile_plan(
    model: Model,
    plan: Plan | str | PathLike[str],
    *,
    verify: bool = True,
    allow_foreign_plan: bool = False,
    **options: Any,
) -> CompiledModel:
    """Build a plan without planning.

    With ``fallback="cpu"``, a second plan for the host's units is made and built, as by
    :func:`optimize`; if a device is missing, only that plan is built.

    Parameters
    ----------
    model
        As for :func:`optimize`.
    plan
        A plan, or the path of its file.
    verify
        Compare the results with a reference before returning the model.
    allow_foreign_plan
        Accept a plan that was made for another machine, if this machine supports its decisions.
    **options
        As for :func:`optimize`.

    Raises
    ------
    PlanMismatch
        If the plan was made for another model, or for another machine without `allow_foreign_plan`;
        names the first difference.
    IllegalDecision
        If a unit declines a decision of the plan.
    UnitUnavailable
        If this machine lacks a device of the plan and there is no fallback.
    """
    chosen = plan if isinstance(plan, Plan) else Plan.load(Path(plan))
    session = Session.open(model, **{**stated(chosen), **options})
    return build_as_planned(session, chosen, verify=verify, allow_foreign_plan=allow_foreign_plan)


def stated(plan: Plan) -> dict[str, Any]:
    """Options that a plan fixes: threads, precision, objective, units beyond the default."""
    mode = precision_mode(plan.precision, plan.max_rel_error)
    return {
        "threads": plan.threads,
        "precision": plan.precision,
        "max_rel_error": plan.max_rel_error,
        # Building needs no objective, so that of a missing package is left out.
        "objective": plan.objective if plan.objective in objectives() else None,
        "units": with_default_units({d.unit for d in plan.decisions.values()}, mode),
    }


@_one_at_a_time
def build_as_planned(
    session: Session, chosen: Plan, *, verify: bool = True, allow_foreign_plan: bool = False
) -> CompiledModel:
    """Build `chosen` for the model of `session`; raises the errors of :func:`compile_plan`."""
    here = this_machine().fingerprint
    check_fits(
        chosen,
        model_hash=session.model.content_hash,
        ids=session.graph.ids,
        machine=None if allow_foreign_plan else here,
    )
    if chosen.machine != here:
        logger.warning(
            "the plan was made for another machine, %s: its predicted times do not hold here",
            chosen.machine,
        )

    def build(session: Session, plan: Plan = chosen) -> CompiledModel:
        return as_planned(session, plan, verify=verify)

    def replanned(session: Session) -> CompiledModel:
        return build(session, best_plan(session, priced_problem(offered(session))))

    lacking = {decision.unit for decision in chosen.decisions.values()} & set(session.left_out)
    if lacking:
        missing = ", ".join(sorted(lacking))
        logger.warning("the plan needs %s, which is missing: planning without it", missing)
        return replanned(session)
    check_legal(session, chosen.decisions)
    offered(session)
    return with_fallback(session, build, replanned)
