"""Plans into runnable models."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import datetime, timezone
from typing import Any

from layoutsel.building.build import Lowered, generate_code
from layoutsel.cost.machine import this_machine
from layoutsel.planning import documents
from layoutsel.planning.plan import Plan
from layoutsel.runtime.compiled import CompiledModel
from layoutsel.runtime.signature import Signature
from layoutsel.session import Session
from layoutsel.versions import all_versions
from tvm_passes.errors import LayoutselError
from tvm_passes.isa import EXTENSIONS, cpu_flags

logger = logging.getLogger(__name__)

GENERATORS = 2
"""Plans for which code is generated at once: LLVM uses one core for each."""


def compiled(session: Session, plan: Plan) -> CompiledModel:
    """Build `plan`."""
    _require_here(session)
    return _generated(session, plan, session.lower(plan.decisions))


def compiled_all(session: Session, plans: Mapping[str, Plan]) -> dict[str, CompiledModel]:
    """The chosen one of `plans`, called "plan", and those of its rivals that can be built."""
    generating: dict[str, Future[CompiledModel]] = {}
    models: dict[str, CompiledModel] = {}
    _require_here(session)
    with ThreadPoolExecutor(GENERATORS) as generators:
        for name, plan in plans.items():
            with _doing_without(name):
                lowered = session.lower(plan.decisions)
                generating[name] = generators.submit(_generated, session, plan, lowered)
        for name, model in generating.items():
            with _doing_without(name):
                models[name] = model.result()
    return models


def _require_here(session: Session) -> None:
    """Refuse a session that plans for another machine: what is built here runs, is raced and is verified here."""
    if session.elsewhere is not None:
        machine = session.described.cpu if session.machine else session.elsewhere.host
        raise LayoutselError(
            f"cannot build for another machine ({machine}): expected this one. Plan for it here, build it there"
        )


@contextlib.contextmanager
def _doing_without(name: str) -> Iterator[None]:
    """Warn of a rival that cannot be built; the chosen plan must be."""
    try:
        yield
    except LayoutselError as error:
        if name == "plan":
            raise
        logger.warning("the rival plan %r cannot be built: %s", name, error)


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
        "devices": list(lowered.devices),
        "places": list(lowered.places),
        "features": sorted(cpu_flags() & {*EXTENSIONS, *this_machine().isa}),
        "plan": documents.to_json(plan),
        "fallbacks": fallbacks,
        "calls": [list(call) for call in lowered.calls],
        "versions": all_versions(),
        "machine": str(this_machine()),
        "built": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }
