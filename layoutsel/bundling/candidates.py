"""Bundles of candidates: everything that a device must measure for planning elsewhere."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from layoutsel.building import boundaries
from layoutsel.building.measure import places_of
from layoutsel.building.problem import Priced, planning_problem
from layoutsel.bundling.making import Making, manifest_of
from layoutsel.bundling.write import write_archive
from layoutsel.compile.measuring import request_for
from layoutsel.compile.offers import Offers
from layoutsel.core.precision import OWN
from layoutsel.cost.measured import Request
from layoutsel.cost.tensor import Tensor
from layoutsel.device.manifest import BoundaryEntry, CandidateEntry, Manifest, ProgramEntry, Unbuilt
from layoutsel.device.outcome import Failure

_FREE = Priced(us=0.0, spread_us=0.0, source="", score_us=0.0)
"""Cost for a problem that is built only for its tensors."""


def write_candidates(making: Making, path: Path) -> Manifest:
    """Compile every candidate and boundary of a model, and write them to a bundle.

    Candidates that fail to build are listed in the bundle with the reason.

    Parameters
    ----------
    making
        Session and folder of the bundle.
    path
        File to write.

    Raises
    ------
    LayoutselError
        If the reference kernel fails to build, or the file cannot be written.
    """
    offers = Offers.of(making.session)
    return write_requests(making, offers, list(_candidates(offers)), _boundaries(offers), path)


def write_requests(
    making: Making,
    offers: Offers,
    candidates: Sequence[Request],
    crossed: Sequence[boundaries.BoundaryProbe],
    path: Path,
) -> Manifest:
    """Compile some candidates and boundaries of a model; see :func:`write_candidates`."""
    session = making.session
    asked = [(request.label, request.payload) for request in candidates]
    asked += [(boundary.label, boundary.payload(session.threads)) for boundary in crossed]
    reference, outcomes = making.compile(asked)
    built, others = outcomes[: len(candidates)], outcomes[len(candidates) :]
    manifest = manifest_of(
        session,
        reference=reference,
        candidates=tuple(
            CandidateEntry(key=r.key, decision=r.decision, label=r.label, program=outcome[0])
            for r, outcome in zip(candidates, built, strict=True)
            if not isinstance(outcome, Failure)
        ),
        boundaries=tuple(
            _boundary(boundary, outcome)
            for boundary, outcome in zip(crossed, others, strict=True)
            if not isinstance(outcome, Failure)
        ),
        unbuilt=tuple(
            Unbuilt(key=r.key, decision=r.decision, label=r.label, reason=outcome.text)
            for r, outcome in zip(candidates, built, strict=True)
            if isinstance(outcome, Failure)
        ),
        workloads=offers.workloads.values(),
    )
    write_archive(making.folder, manifest, path)
    return manifest


def _candidates(offers: Offers) -> Iterator[Request]:
    """Requests for all candidates; equal sub-graphs share one."""
    seen = set()
    for subgraph in offers.session.graph.subgraphs:
        for decision in offers.candidates[subgraph.id].decisions:
            request = request_for(offers, subgraph, decision)
            if (request.key, request.decision) not in seen:
                seen.add((request.key, request.decision))
                yield request


def _boundaries(offers: Offers) -> list[boundaries.BoundaryProbe]:
    layouts = {
        decision.layout
        for candidates in offers.candidates.values()
        for decision in candidates.decisions
        if decision.precision in OWN
    }
    return boundaries.boundaries_of(
        _tensors(offers), sorted(layouts), offers.session.placed_units, offers.session.alike
    )


def _tensors(offers: Offers) -> Sequence[Tensor]:
    """Tensors of the model with the layouts of all candidates on both sides, without prices."""
    session = offers.session
    with session.generating():
        return planning_problem(
            session.graph,
            session.functions,
            offers.candidates,
            lambda _subgraph, _decision: _FREE,
            lambda boundaries: [0.0] * len(boundaries),
            name=session.model.name,
            content_hash=session.model.content_hash,
        ).tensors


def _places(boundary: boundaries.BoundaryProbe) -> tuple[str, ...]:
    return tuple(device.target_name for device in places_of(boundary.payload(1)))


def _boundary(
    boundary: boundaries.BoundaryProbe, programs: tuple[ProgramEntry, ...]
) -> BoundaryEntry:
    return BoundaryEntry(
        kind=boundary.kind,
        source=boundary.source,
        destination=boundary.destination,
        tensor=boundary.tensor,
        label=boundary.label,
        places=() if programs else _places(boundary),
        programs=programs,
    )
