"""A bundle of candidates: everything that a device has to measure so that its plans can be made here."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from layoutsel.building import boundaries
from layoutsel.building.measure import places_of
from layoutsel.building.problem import Priced, planning_problem
from layoutsel.bundling.compile import Order
from layoutsel.bundling.pool import OnCompiled, compile_all
from layoutsel.bundling.targets import architecture, features
from layoutsel.bundling.write import write_archive
from layoutsel.cost.measured import Request
from layoutsel.cost.outcome import Failure
from layoutsel.ondevice.manifest import (
    SCHEMA_VERSION,
    Boundary,
    Candidate,
    Deployed,
    Manifest,
    Program,
    Requirements,
    Unbuilt,
)
from layoutsel.planning.problem import Tensor
from layoutsel.precision import OWN
from layoutsel.session import Session
from layoutsel.versions import all_versions
from tvm_passes.cpu import host_target
from tvm_passes.errors import LayoutselError
from tvm_passes.gpu.target import device_target

_FREE = Priced(us=0.0, spread_us=0.0, source="", score_us=0.0)


def write_bundle(
    session: Session, path: Path, compiler: str | None = None, on_compiled: OnCompiled | None = None
) -> Manifest:
    """Compile every candidate and boundary of `session`'s model, and write them to `path`.

    What cannot be built is in the bundle as a reason.

    Parameters
    ----------
    compiler
        The C++ compiler that links for the machine; this machine's where None.

    Raises
    ------
    LayoutselError
        If not even the reference kernel can be built.
    """
    with tempfile.TemporaryDirectory(prefix="layoutsel-bundle-") as name:
        contents = _compiled(session, Path(name), compiler, on_compiled)
        write_archive(Path(name), contents, path)
    return contents


def _compiled(
    session: Session, folder: Path, compiler: str | None, on_compiled: OnCompiled | None
) -> Manifest:
    candidates, crossed = list(_candidates(session)), _boundaries(session)
    requests = [
        {"kind": "reference"},
        *(request.payload for request in candidates),
        *(boundary.payload(session.threads) for boundary in crossed),
    ]
    labels = ["the reference kernel", *(request.label for request in candidates)]
    labels += [boundary.label for boundary in crossed]
    orders = [_order(session, request, folder, compiler) for request in requests]
    reference, *rest = compile_all(orders, labels, on_compiled)
    if isinstance(reference, Failure):
        raise LayoutselError(f"cannot compile for that machine: {reference.reason}")
    built, others = rest[: len(candidates)], rest[len(candidates) :]
    return manifest_of(
        session,
        reference=reference[0],
        candidates=tuple(
            Candidate(key=r.key, decision=r.decision, label=r.label, program=outcome[0])
            for r, outcome in zip(candidates, built, strict=True)
            if not isinstance(outcome, Failure)
        ),
        boundaries=tuple(
            _boundary(boundary, outcome)
            for boundary, outcome in zip(crossed, others, strict=True)
            if not isinstance(outcome, Failure)
        ),
        unbuilt=tuple(
            Unbuilt(key=r.key, decision=r.decision, label=r.label, reason=outcome.reason)
            for r, outcome in zip(candidates, built, strict=True)
            if isinstance(outcome, Failure)
        ),
    )


def manifest_of(
    session: Session,
    *,
    reference: Program | None = None,
    candidates: tuple[Candidate, ...] = (),
    boundaries: tuple[Boundary, ...] = (),
    unbuilt: tuple[Unbuilt, ...] = (),
    deployed: Deployed | None = None,
    units: Sequence[str] | None = None,
) -> Manifest:
    """A manifest, with what the machine of `session` needs for `units`, all of its own by default."""
    used = [session.units[unit].backend for unit in units or session.units]
    devices = sorted({b.device for b in used if b.name in session.devices})
    with session.generating():
        host = host_target()
        targets = {str(host.kind.name): str(host)}
        targets |= {kind: str(device_target(kind)) for kind in devices}
    workloads = {work.key: work for work in session.workloads.values()}
    return Manifest(
        schema_version=SCHEMA_VERSION,
        model=session.model.name,
        model_hash=session.model.content_hash,
        targets=targets,
        requires=Requirements(
            architecture=architecture(host),
            features=features(host),
            units=tuple(sorted(backend.name for backend in used)),
            devices=tuple(devices),
            threads=session.threads,
            versions=all_versions(),
        ),
        reference=reference,
        candidates=candidates,
        boundaries=boundaries,
        unbuilt=unbuilt,
        workloads=tuple(workloads.values()) if candidates else (),
        deployed=deployed,
    )


def _candidates(session: Session) -> Iterator[Request]:
    """Every candidate once, whatever number of sub-graphs it is of."""
    seen = set()
    for subgraph in session.graph.subgraphs:
        for decision in session.candidates[subgraph.id].decisions:
            request = session.request(subgraph, decision)
            if (request.key, decision) not in seen:
                seen.add((request.key, decision))
                yield request


def _boundaries(session: Session) -> list[boundaries.Boundary]:
    layouts = {
        decision.layout
        for candidates in session.candidates.values()
        for decision in candidates.decisions
        if decision.precision in OWN
    }
    return boundaries.boundaries_of(_tensors(session), sorted(layouts), tuple(session.units))


def _tensors(session: Session) -> Sequence[Tensor]:
    """The model's tensors with the layouts that candidates have at both of their ends; all prices are nought."""
    with session.generating():
        return planning_problem(
            session.graph,
            session.candidates,
            lambda _subgraph, _decision: _FREE,
            _nothing,
            _nothing,
            _nothing,
            name=session.model.name,
            content_hash=session.model.content_hash,
        ).tensors


def _nothing(_tensor: Tensor, _source: str, _destination: str) -> float:
    return 0.0


def _boundary(boundary: boundaries.Boundary, programs: tuple[Program, ...]) -> Boundary:
    return Boundary(
        kind=boundary.kind,
        source=boundary.source,
        destination=boundary.destination,
        tensor=boundary.tensor,
        label=boundary.label,
        places=() if programs else places_of(boundary.payload(1)),
        programs=programs,
    )


def _order(
    session: Session, request: Mapping[str, Any], folder: Path, compiler: str | None
) -> Order:
    machine = session.elsewhere
    return Order(
        request=request,
        host=_exported(machine.host) if machine else None,
        devices={k: _exported(t) for k, t in machine.devices.items()} if machine else {},
        folder=folder,
        compiler=compiler,
    )


def _exported(target: Any) -> dict[str, Any]:
    return {name: _plain(value) for name, value in target.export().items()}


def _plain(value: Any) -> Any:
    return value if isinstance(value, str | int | float) else [str(item) for item in value]
