"""Code of plans, generated in copies of this process within limits; only this process loads it.

The memory of LLVM and TVM's passes returns to the system with the copy. A plan that uses a device
is built in this process, as drivers do not survive a fork. So is a plan if there is no linker, or
if no process can be forked. Passes of TVM are then preceded by a check of the limits.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, Mapping
from datetime import datetime, timezone
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
from tvm.support import cc

from layoutsel import documents
from layoutsel.building.build import Lowered, generate_code
from layoutsel.building.kernel_groups import generate_in_groups
from layoutsel.compile.handing_over import entries, received
from layoutsel.compile.limited_passes import checked
from layoutsel.compile.session import Session
from layoutsel.compile.versions import all_versions
from layoutsel.device.artifact_header import devices_of
from layoutsel.device.forked import CopyFailed, Forked, Limits, Stuck
from layoutsel.device.machine import this_machine
from layoutsel.device.outcome import FailureKind
from layoutsel.device.signature import signatures
from layoutsel.device.virtual_machine import load_library
from layoutsel.planning.plan import Plan
from layoutsel.runtime.compiled import CompiledModel
from layoutsel.runtime.linking import Linked, link_of, runnable
from tvm_passes.cpu.kernel_pipeline import forget_kernels
from tvm_passes.decision import Decision, SubgraphId
from tvm_passes.errors import BuildError
from tvm_passes.isa import EXTENSIONS, cpu_flags

logger = logging.getLogger(__name__)

BUILD_LIMIT_S = 600.0
"""Time limit of lowering a plan and generating its code, seconds."""
BUILD_BYTES = 4 << 30
"""Memory limit of the same work in addition to four times the model's weights, bytes."""

Decisions = Mapping[SubgraphId, Decision]
"""Decision of each sub-graph."""


class Building:
    """A plan whose code is being generated; a context manager that stops it at the end.

    Parameters
    ----------
    session
        Session of the model.
    plan
        Plan to state in the model's header.
    decisions
        Decisions to build: those of the plan, or others after a fallback.
    time_limit_s
        Time limit, seconds; by default :data:`BUILD_LIMIT_S`.
    """

    def __init__(
        self,
        session: Session,
        plan: Plan,
        decisions: Decisions,
        time_limit_s: float | None = None,
    ) -> None:
        self._session, self._plan, self._decisions = session, plan, dict(decisions)
        self._held = session.weights.in_use()
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._child: Forked | None = None
        weights = sum(spec.nbytes for one in session.graph.subgraphs for spec in one.weights)
        self._limits = Limits(
            time_s=time_limit_s or BUILD_LIMIT_S, memory_bytes=BUILD_BYTES + 4 * weights
        )
        reason = _why_here(decisions)
        if reason:
            logger.debug("a plan is built in this process: %s", reason)
            return
        self._folder = tempfile.TemporaryDirectory(prefix="layoutsel-")
        session.make_room()  # a copy would duplicate free memory by writing to it
        try:
            self._child = Forked(self._work(Path(self._folder.name) / "library.so"), self._limits)
        except Stuck as error:
            _warn_of_looser_limits(error)

    def __enter__(self) -> Building:
        return self

    def __exit__(self, *_error: object) -> None:
        if self._child is not None:
            self._child.__exit__(None, None, None)
        if self._folder is not None:
            self._folder.cleanup()

    def model(self) -> CompiledModel:
        """Wait for the generated code and return the model.

        Raises
        ------
        BuildError
            If the generation fails, or takes too long or too much memory.
        """
        try:
            if self._child is None:
                return self._built_here()
            try:
                return self._taken_over(self._child)
            except Stuck as error:
                _warn_of_looser_limits(error)
                return self._built_here()
        except CopyFailed as error:
            advice = _ADVICE.get(error.failure.kind, "Pin its sub-graphs to another unit or layout")
            raise BuildError(
                f"the code of the plan cannot be generated: {error.failure.reason}. {advice}"
            ) from error

    def _work(self, library: Path) -> Callable[[Connection], None]:
        """Make the function of a process copy: generate the code, send the header and weights."""

        def work(connection: Connection) -> None:
            lowered = self._lowered()
            header = header_of(self._session, self._plan, lowered)
            weights = lowered.weights
            executables = [generate_in_groups(lowered.module, lowered.target)]
            del lowered
            forget_kernels()
            link_of(executables.pop, library)
            table, contents = entries(weights, self._session.weights, self._held)
            del weights
            connection.send((header, table))
            while contents:
                connection.send_bytes(contents.pop(0).data)

        return work

    def _taken_over(self, child: Forked) -> CompiledModel:
        header, table = child.receive()
        weights: list[np.ndarray] = received(table, child, self._session.weights, self._held)
        assert self._folder is not None
        library = Path(self._folder.name) / "library.so"
        module = load_library(library, devices_of(header))
        return CompiledModel(module, weights, header, executable=Linked(library))

    def _built_here(self) -> CompiledModel:
        with checked(self._limits):
            lowered = self._lowered()
            executable = generate_code(lowered.module, lowered.target)
        header = header_of(self._session, self._plan, lowered)
        return CompiledModel(runnable(executable), lowered.weights, header, executable=executable)

    def _lowered(self) -> Lowered:
        staying = [stage.name for stage in self._plan.stages if stage.stays]
        stages = self._plan.held_by_stages
        return self._session.lower(self._decisions, self._plan.order, stages, staying)


_ADVICE = {
    FailureKind.TIMEOUT: "Pin the sub-graphs with the largest kernels to another unit or layout",
    FailureKind.ENVIRONMENT: "Give the process more memory, or close others",
}
"""Advice by the kind of a failure."""


def _warn_of_looser_limits(error: Stuck) -> None:
    logger.warning(
        "a plan is built in this process: %s; its limits of time and memory do not end a pass or "
        "code generation that has begun",
        error,
    )


def _why_here(decisions: Decisions) -> str | None:
    """Explain why a plan must be built in this process; None if a copy can build it."""
    devices = {decision.device for decision in decisions.values()}
    used = [device.target_name for device in sorted(devices) if not device.is_host]
    if used:
        return f"it uses {', '.join(used)}"
    if cc.get_cc() is None:
        return "there is no C++ compiler to link with"
    return None


def header_of(session: Session, plan: Plan, lowered: Lowered) -> dict[str, Any]:
    """Make the header of the artifact of a lowered plan."""
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
        "devices": [device.target_name for device in lowered.devices],
        "places": [place.target_name for place in lowered.places],
        "readers": list(lowered.readers),
        "features": sorted(cpu_flags() & {*EXTENSIONS, *this_machine().isa}),
        "plan": documents.to_json(plan),
        "fallbacks": fallbacks,
        "stages": [entry.to_json() for entry in lowered.entries],
        "calls": [list(call) for call in lowered.calls],
        "versions": all_versions(),
        "machine": str(this_machine()),
        "built": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }
