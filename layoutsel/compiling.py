"""Plans into runnable models."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import datetime, timezone
from functools import partial
from typing import Any

from layoutsel.building.build import Lowered, generate_code
from layoutsel.cost.machine import this_machine
from layoutsel.errors import DeviceError
from layoutsel.planning import documents
from layoutsel.planning.plan import Plan
from layoutsel.runtime.compiled import CompiledModel
from layoutsel.runtime.device_errors import BUILD, LOST
from layoutsel.runtime.linking import runnable
from layoutsel.runtime.samples import random_inputs
from layoutsel.runtime.signature import signatures
from layoutsel.runtime.trial import run_within
from layoutsel.session import Session
from layoutsel.versions import all_versions
from tvm_passes.backends import BACKENDS
from tvm_passes.decision import Decision, SubgraphId
from tvm_passes.errors import LayoutselError
from tvm_passes.isa import EXTENSIONS, cpu_flags

logger = logging.getLogger(__name__)

GENERATORS = 2
"""Plans for which code is generated at once: LLVM uses one core for each."""
REBUILDS = 4
"""How often a sub-graph that a device fails at goes to the CPU alone; then the device is given up."""


def compiled(session: Session, plan: Plan) -> CompiledModel:
    """Build `plan`.

    A sub-graph whose kernel a device's driver does not build goes to the CPU, with a warning; where the session has a
    fallback, so does one that a device fails at otherwise.

    Raises
    ------
    BuildError
        If the CPU fails as well.
    DeviceError
        If a device fails that shall not be done without.
    """
    _require_here(session)
    lowered = session.lower(plan.decisions, plan.order)
    return _settled(session, plan, lambda: _generated(session, plan, lowered))


def compiled_all(session: Session, plans: Mapping[str, Plan]) -> dict[str, CompiledModel]:
    """Those of the rival `plans` that can be built, see :func:`compiled`; with a warning for each of the others."""
    generating: dict[str, Future[CompiledModel]] = {}
    models: dict[str, CompiledModel] = {}
    _require_here(session)
    with ThreadPoolExecutor(GENERATORS) as generators:
        for name, plan in plans.items():
            with _doing_without(name):
                lowered = session.lower(plan.decisions, plan.order)
                generating[name] = generators.submit(_generated, session, plan, lowered)
        for name, model in generating.items():
            with _doing_without(name):
                models[name] = _settled(session, plans[name], model.result)
    return models


def _settled(session: Session, plan: Plan, generate: Callable[[], CompiledModel]) -> CompiledModel:
    """What `generate` makes of `plan`, or another model without what its devices fail at."""
    decisions = dict(plan.decisions)
    failures = 0
    while True:
        try:
            return _tried(session, generate())
        except DeviceError as error:
            failures += 1
            failed = _failed(session, error, decisions, alone=failures <= REBUILDS)
            runs = "runs" if len(failed) == 1 else "run"
            logger.warning("%s; %s %s on the CPU instead", error.what, ", ".join(failed), runs)
            decisions.update(dict.fromkeys(failed, Decision(unit="cpu")))
            generate = partial(_generated, session, plan, session.lower(decisions, plan.order))


def _tried(session: Session, model: CompiledModel) -> CompiledModel:
    """`model` after a run: drivers build kernels, and memory is asked for, in the first one."""
    if model.uses_devices:
        run_within(model, random_inputs(model.inputs), session.time_limit_s)
    return model


def _failed(
    session: Session, error: DeviceError, decisions: Mapping[SubgraphId, Decision], *, alone: bool
) -> list[SubgraphId]:
    """The sub-graphs to take from the device of `error`: the one that it names, or all where kernels do not build.

    Raises
    ------
    DeviceError
        The same, where the device shall not be done without, or a plan of the host's units is better.
    """
    theirs = [id_ for id_, d in decisions.items() if BACKENDS[d.unit].device == error.device]
    goes_on = session.fallback is not None or error.cause == BUILD
    if goes_on and alone and error.cause != LOST and error.subgraph in theirs:
        return [SubgraphId(error.subgraph)]
    if session.fallback is None and error.cause == BUILD and theirs:
        return theirs
    raise error


def _require_here(session: Session) -> None:
    """Refuse a session that plans for another machine: what is built here runs, is raced and is verified here."""
    if session.elsewhere is not None:
        machine = session.described.cpu if session.machine else session.elsewhere.host
        raise LayoutselError(
            f"cannot build for another machine ({machine}): expected this one. Plan for it here, build it there"
        )


@contextlib.contextmanager
def _doing_without(name: str) -> Iterator[None]:
    """Warn of a rival that cannot be built."""
    try:
        yield
    except LayoutselError as error:
        logger.warning("the rival plan %r cannot be built: %s", name, error)


def _generated(session: Session, plan: Plan, lowered: Lowered) -> CompiledModel:
    executable = generate_code(lowered.module, lowered.target)
    header = header_of(session, plan, lowered)
    return CompiledModel(runnable(executable), lowered.weights, header, executable=executable)


def header_of(session: Session, plan: Plan, lowered: Lowered) -> dict[str, Any]:
    """What the artifact of a plan that was lowered tells of itself."""
    fallbacks = {
        id_: str(decision)
        for id_, decision in lowered.decisions.items()
        if decision != plan.decisions[id_]
    }
    return {
        "schema_version": 1,
        "model": session.model.name,
        "model_hash": session.model.content_hash,
        "inputs": [one.to_json() for one in signatures(session.model.inputs)],
        "outputs": [one.to_json() for one in signatures(session.model.outputs)],
        "threads": session.threads,
        "units": sorted({decision.unit for decision in lowered.decisions.values()}),
        "devices": list(lowered.devices),
        "places": list(lowered.places),
        "readers": list(lowered.readers),
        "features": sorted(cpu_flags() & {*EXTENSIONS, *this_machine().isa}),
        "plan": documents.to_json(plan),
        "fallbacks": fallbacks,
        "calls": [list(call) for call in lowered.calls],
        "versions": all_versions(),
        "machine": str(this_machine()),
        "built": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }
