"""Building of plans into models that run here."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator, Mapping
from functools import partial

from layoutsel.compile.plan_code import Building
from layoutsel.compile.session import Session
from layoutsel.device.device_errors import BUILD, LOST
from layoutsel.errors import DeviceError
from layoutsel.planning.plan import Plan
from layoutsel.runtime.compiled import CompiledModel
from layoutsel.runtime.samples import random_inputs
from layoutsel.runtime.trial import run_within
from tvm_passes.decision import Decision, SubgraphId
from tvm_passes.errors import LayoutselError
from tvm_passes.units.entry import HOST_UNIT

logger = logging.getLogger(__name__)

REBUILDS = 4
"""Maximum number of sub-graphs moved off a failing device before it is abandoned."""


def compiled(session: Session, plan: Plan) -> CompiledModel:
    """Build `plan`.

    A sub-graph whose kernel a device's driver fails to build goes to the CPU, with a warning. If
    the session has a fallback, so does a sub-graph that fails on a device for another reason.

    Raises
    ------
    BuildError
        If the CPU fails as well.
    DeviceError
        If a device fails and the session has no fallback from it.
    """
    _require_here(session)
    with Building(session, plan, plan.decisions) as building:
        return _settled(session, plan, building.model)


def compiled_all(
    session: Session, plans: Mapping[str, Plan], time_limit_s: float | None = None
) -> dict[str, CompiledModel]:
    """Build those of the contending `plans` that can be built; the others give a warning.

    Code is generated concurrently, for each plan within `time_limit_s` seconds. See
    :func:`compiled`.
    """
    _require_here(session)
    models: dict[str, CompiledModel] = {}
    with contextlib.ExitStack() as stack:
        started = {
            name: stack.enter_context(Building(session, plan, plan.decisions, time_limit_s))
            for name, plan in plans.items()
        }
        for name, building in started.items():
            with _doing_without(name), building:
                models[name] = _settled(session, plans[name], building.model)
    return models


def _settled(session: Session, plan: Plan, generate: Callable[[], CompiledModel]) -> CompiledModel:
    """Build the model, and again on the CPU for sub-graphs that fail on their device."""
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
            decisions.update(dict.fromkeys(failed, Decision(unit=HOST_UNIT)))
            generate = partial(_built, session, plan, dict(decisions))


def _built(session: Session, plan: Plan, decisions: Mapping[SubgraphId, Decision]) -> CompiledModel:
    with Building(session, plan, decisions) as building:
        return building.model()


def _tried(session: Session, model: CompiledModel) -> CompiledModel:
    """Run a model on devices once: drivers build kernels and allocate memory in the first run."""
    if model.uses_devices:
        run_within(model, random_inputs(model.inputs), session.options.time_limit_s)
    return model


def _failed(
    session: Session, error: DeviceError, decisions: Mapping[SubgraphId, Decision], *, alone: bool
) -> list[SubgraphId]:
    """List the sub-graphs to move off a failing device.

    It is the one named by `error`, or all of the device if kernels fail to build.

    Raises
    ------
    DeviceError
        The same error, if the session has no fallback, or a plan of the host's units is better.
    """
    theirs = [id_ for id_, decision in decisions.items() if decision.device == error.device]
    goes_on = session.options.fallback is not None or error.cause == BUILD
    if goes_on and alone and error.cause != LOST and error.subgraph in theirs:
        return [SubgraphId(error.subgraph)]
    if session.options.fallback is None and error.cause == BUILD and theirs:
        return theirs
    raise error


def _require_here(session: Session) -> None:
    """Reject a session that plans for another machine: models are built and verified here."""
    if session.cross_target is not None:
        machine = session.described.cpu if session.machine else session.cross_target.host
        raise LayoutselError(
            f"cannot build for another machine ({machine}): expected this one. "
            "Plan for it here, build it there"
        )


@contextlib.contextmanager
def _doing_without(name: str) -> Iterator[None]:
    """Turn the failure to build a contender into a warning."""
    try:
        yield
    except LayoutselError as error:
        logger.warning("the contender %r cannot be built: %s", name, error)
