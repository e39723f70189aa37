"""Phase after opening a model: candidates of its sub-graphs, and data that prices depend on."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial

from layoutsel.building.in_place import InPlaceConcats
from layoutsel.building.problem import Candidates, gather_candidates
from layoutsel.building.workloads import workload
from layoutsel.compile.cost_sources import CostSources
from layoutsel.compile.session import Session
from layoutsel.core.workload import Workload
from layoutsel.cost.graph import Subgraph
from layoutsel.cost.measured import Key
from layoutsel.device.outcome import Failure
from layoutsel.units.sensitive import Sensitivity, sensitive_subgraphs
from tvm_passes.decision import Decision, SubgraphId
from tvm_passes.errors import Decline


@dataclass(frozen=True, kw_only=True)
class Offers:
    """Candidates of every sub-graph of a session, with the workloads for cost models."""

    session: Session
    """Session of the model."""
    candidates: Mapping[SubgraphId, Candidates]
    """Legal decisions and declines of each sub-graph."""
    records: Mapping[tuple[str, Decision], str]
    """Tuning records used by candidates, by structural hash and decision."""
    workloads: Mapping[SubgraphId, Workload]
    """Workload of each sub-graph, without tuning records."""
    in_place: InPlaceConcats
    """Concatenations that need not copy their parts."""
    costs: CostSources
    """Cost models of the target machine."""
    disturbed: dict[Key, Failure] = field(default_factory=dict, compare=False)
    """Interrupted measurements, neither repeated for these offers nor stored."""

    @classmethod
    def of(cls, session: Session) -> Offers:
        """Collect the candidates of every sub-graph from the units of `session`."""
        admits = partial(_admits, session, sensitive_subgraphs(session.graph))
        with session.generating():
            devices = {unit: session.offered_devices(unit) for unit in session.units}
            candidates = gather_candidates(
                session.graph, session.functions, session.units, devices, admits
            )
            return cls(
                session=session,
                candidates=candidates,
                records=_records(session, candidates),
                workloads=_workloads(session, candidates),
                in_place=InPlaceConcats.read(session.graph, session.functions),
                costs=CostSources(session),
            )

    def measured_as(self, decision: Decision) -> Decision:
        """Return the decision on the first identical device, whose measurements hold for all."""
        device = decision.device
        return decision.on(self.session.alike.get(device, device))

    def asked(self, subgraph: Subgraph, decision: Decision) -> Workload:
        """Return the workload of a candidate; a tuning record is part of its key."""
        work = self.workloads[subgraph.id]
        record = self.records.get((subgraph.structural_hash, decision))
        if record is None:
            return work
        return replace(work, key=f"{work.key}+{hashlib.sha256(record.encode()).hexdigest()[:12]}")


def _admits(
    session: Session,
    sensitive: Mapping[SubgraphId, Sensitivity],
    subgraph: Subgraph,
    decision: Decision,
) -> bool | Decline:
    """Decide if the mode admits a decision.

    Sensitive sub-graphs decline precisions whose error would exceed the mode's limit.
    """
    mode, sensitivity = session.precision, sensitive.get(subgraph.id)
    if mode.offers(decision.precision, sensitivity.felt if sensitivity else 0.0):
        return True
    if sensitivity is None or decision.precision not in mode.precisions:
        return False
    return sensitivity.decline(subgraph, decision, mode)


def _records(
    session: Session, candidates: Mapping[SubgraphId, Candidates]
) -> dict[tuple[str, Decision], str]:
    found = {}
    for key, subgraph in _distinct(session).items():
        for decision in candidates[subgraph.id].decisions:
            backend = session.units[decision.unit].backend
            if record := session.functions.record(subgraph.id, decision, backend):
                found[key, decision] = record
    return found


def _workloads(
    session: Session, candidates: Mapping[SubgraphId, Candidates]
) -> dict[SubgraphId, Workload]:
    hints = {}
    for key, subgraph in _distinct(session).items():
        hints[key] = {
            str(decision): session.functions.hints(
                subgraph.id, decision, session.units[decision.unit].backend
            )
            for decision in candidates[subgraph.id].decisions
        }
    return {one.id: workload(one, hints[one.structural_hash]) for one in session.graph.subgraphs}


def _distinct(session: Session) -> dict[str, Subgraph]:
    """Map each structural hash to one of its sub-graphs."""
    return {subgraph.structural_hash: subgraph for subgraph in session.graph.subgraphs}
