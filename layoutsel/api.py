"""The Python API: one call from a model to a compiled module, or its steps one by one."""

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
from layoutsel.compile.fallback import with_fallback
from layoutsel.compile.generic import offered
from layoutsel.compile.legality import check_legal
from layoutsel.compile.make_plan import best_plan, priced_problem
from layoutsel.compile.options import TIME_LIMIT_S, OnProgress, Options
from layoutsel.compile.session import Session
from layoutsel.core.precision import check_budget, precision_mode
from layoutsel.device.machine import this_machine
from layoutsel.device.turns import Turn
from layoutsel.planning.objectives import objectives
from layoutsel.planning.plan import Plan, check_fits
from layoutsel.runtime.compiled import CompiledModel
from layoutsel.units.base import with_default_units
from tvm_passes.limits import ImportLimits

logger = logging.getLogger(__name__)

Model: TypeAlias = str | PathLike[str] | onnx.ModelProto | tvm.IRModule

_P = ParamSpec("_P")
_R = TypeVar("_R")

_turn = Turn("compiled a model", fork_waits_s=0.0)
"""Held while a model is imported, planned or built: TVM's block builders keep one stack for all threads of a process."""


def _one_at_a_time(function: Callable[_P, _R]) -> Callable[_P, _R]:
    """Have calls of `function` from several threads run one after the other."""

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
    cost: str = "learned",
    measure_budget_s: float | None = None,
    cost_model: str | Path | None = None,
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
    """Plan and compile a model for this machine. Calls from several threads run one after the other.

    The time is bounded. After the import, solving takes some ten seconds for each plan, and measuring
    `measure_budget_s` and one candidate's 60 s (``measured``: 60 s for each candidate and boundary). Racing takes
    `time_limit_s` and what was begun then: one build and one run of each contender; the build of the chosen plan ten
    minutes. Verifying takes `time_limit_s` for
    the reference, and as much for the first run of a plan that was not raced.

    Parameters
    ----------
    model
        Path of an ONNX file, a loaded ONNX model, a Relax module, or ``light:resnet50``,
        ``arch:mobilenet_v2`` and their like.
    units
        Compute units to choose from; every available one if None.
    precision
        ``f32``: f32 arithmetic only. ``f32-grade``: products of pairs of bfloat16 as well, about as exact. ``bf16``:
        bfloat16 as well. ``auto``: all three, as fast as `max_rel_error` allows. Sensitive operators (softmax,
        normalisations, the last product) stay f32 but with ``auto``.
    max_rel_error
        With ``auto``, the largest relative L2 error of an output or its logits; 1e-3 if None.
    calib
        An ``.npz`` file of inputs by name, samples behind each other, to measure errors on; a seeded random one if None.
    threads
        Threads that the model will run on; all of this process's cores if None.
    shapes
        Shape of each input with a dynamic dimension.
    strategy
        ``joint``: unit and layout together. ``score``: unit by complexity score, then the layout.
    cost
        ``learned``: predicted by the model that ships with the package (or `cost_model`), measured where the cache has
        an answer. ``hybrid``: the same, and candidates whose uncertainty could change the plan are measured.
        ``measured``: every candidate is timed once per machine. ``roofline``: nothing but the machine is measured.
    measure_budget_s
        Seconds that ``hybrid``, or ``learned`` beyond f32, measures for at most; 20 for f32, 60 else if None.
    cost_model
        Folder of a learned cost model (``layoutsel train``); the one of the package if None.
    pins
        Decisions to honour, such as ``"conv_.*=onednn:NCHW16c"`` or ``"s7=cpu"``.
    cache
        File of measurements; a file in the user's cache folder if None.
    verify
        Compare the results with a reference before handing the model over.
    verify_speed
        Time the plan against the next best ones and single-unit baselines, and keep the fastest.
    progress
        Called after every measurement.
    logs
        Folder of tuning records, as ``layoutsel tune`` writes it; one in the user's cache folder if None.
    fallback
        ``cpu``: go on without a device that is missing or fails, with warnings. The model then holds a second one,
        planned for the host's units alone, that takes over where a device is missing or fails later.
    objective
        ``sum``: the time of all sub-graphs and boundaries, one after the other. ``makespan``: as
        `parallel`. ``within-error``: as precision ``auto``. Other packages add further ones. If
        None, the one that the other options ask for.
    parallel
        If True, devices work while the host does: the plan is made for the time until all is done, not for the sum.
    time_limit_s
        Seconds that racing plans takes at most, and each of the steps of verification: the reference, a run.
    memory_limit_mb
        Megabytes that compiling takes beyond the memory of the process before; three times the weights and 225 MB where
        None. Plans that do not fit beside the fastest one are not raced.
    allow_external_links
        If True, links among a file's external data may lead out of its folder, or the cache that it is a link into.
    limits
        Sizes that the import may reach (bytes of a tensor and of computed constants, nodes, depth); the defaults of
        :class:`layoutsel.ImportLimits` if None.

    Raises
    ------
    LayoutselError
        If the model cannot be imported, a pin cannot be honoured, or the results are wrong.
    DeviceError
        If a device fails that the model shall not do without.
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
        problem = priced_problem(offered(session), cost, pins, measure_budget_s)
        chosen = best_plan(session, problem, strategy)
        return finish(session, chosen, problem, verify=verify, verify_speed=verify_speed)

    return with_fallback(Session.open(model, options), build)


@_one_at_a_time
def plan(model: Model, **options: Any) -> Plan:
    """Choose a decision for every sub-graph; options as of :func:`optimize`.

    With `machine`, the file of another machine and its devices, the plan is for that one, and nothing is measured.
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
    """Build what a plan says, without planning; `plan` is one, or its file.

    With ``fallback="cpu"`` a second one is made for the host's units, as by :func:`optimize`; where a device is missing,
    that alone is built.

    Parameters
    ----------
    allow_foreign_plan
        Build a plan that was made for another machine, where this one can do what it says.

    Raises
    ------
    PlanMismatch
        If the plan was made for another model, or another machine without leave; names the first thing that differs.
    IllegalDecision
        If a unit declines what the plan, perhaps edited, decides for it.
    UnitUnavailable
        If this machine lacks a device that the plan needs, and there is no fallback.
    """
    chosen = plan if isinstance(plan, Plan) else Plan.load(Path(plan))
    session = Session.open(model, **{**stated(chosen), **options})
    return build_as_planned(session, chosen, verify=verify, allow_foreign_plan=allow_foreign_plan)


def stated(plan: Plan) -> dict[str, Any]:
    """Options of a session that a plan states.

    They are threads, precision, objective, and units that are not used by default.
    """
    mode = precision_mode(plan.precision, plan.max_rel_error)
    return {
        "threads": plan.threads,
        "precision": plan.precision,
        "max_rel_error": plan.max_rel_error,
        # Building needs no objective: one of a package that is not there is left out.
        "objective": plan.objective if plan.objective in objectives() else None,
        "units": with_default_units({d.unit for d in plan.decisions.values()}, mode),
    }


@_one_at_a_time
def build_as_planned(
    session: Session, chosen: Plan, *, verify: bool = True, allow_foreign_plan: bool = False
) -> CompiledModel:
    """Build `chosen`, perhaps loaded and edited, for the model of `session`; errors as of :func:`compile_plan`."""
    here = this_machine().fingerprint
    check_fits(
        chosen,
        model_hash=session.model.content_hash,
        ids=session.graph.ids,
        machine=None if allow_foreign_plan else here,
    )
    if chosen.machine != here:
        logger.warning(
            "the plan was made for another machine, %s: the times that it predicts are not this one's",
            chosen.machine,
        )

    def build(session: Session, plan: Plan = chosen) -> CompiledModel:
        return as_planned(session, plan, verify=verify)

    def anew(session: Session) -> CompiledModel:
        return build(session, best_plan(session, priced_problem(offered(session))))

    lacking = {decision.unit for decision in chosen.decisions.values()} & set(session.left_out)
    if lacking:
        logger.warning("the plan needs %s: another one is made without", ", ".join(sorted(lacking)))
        return anew(session)
    check_legal(session, chosen.decisions)
    offered(session)
    return with_fallback(session, build, anew)
