"""What the candidates and boundaries of a session cost, by a cost model."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from math import prod
from typing import TYPE_CHECKING

from layoutsel.building.asked import tensor_spec
from layoutsel.building.problem import Priced, planning_problem
from layoutsel.cost.measured import MeasuredCost
from layoutsel.cost.model import Cost, Infeasible, Workload
from layoutsel.model.graph import Subgraph
from layoutsel.planning.problem import HOST, PlanningProblem, Tensor
from tvm_passes.backends import BACKENDS
from tvm_passes.decision import Decision
from tvm_passes.errors import Decline
from tvm_passes.layout import BF16
from tvm_passes.tuned import recorded_us

if TYPE_CHECKING:
    from layoutsel.session import Session

logger = logging.getLogger(__name__)

TUNED_SPREAD = 0.2
"""How far off what was measured while tuning may be, as a share of it: the weights were in the cache then."""
FETCH_GBPS = 14.0
"""Rate at which tiles are loaded out of another core's cache: what 20 convolutions took more within plans than alone."""


@dataclass(frozen=True)
class Pricing:
    """Prices by `model`, or with cost ``roofline`` by the machine alone."""

    session: Session
    model: MeasuredCost
    cost: str = "learned"

    def problem(self) -> PlanningProblem:
        """The planning problem of all candidates."""
        session = self.session
        return planning_problem(
            session.graph,
            session.candidates,
            self.candidate,
            lambda tensor, source, destination: (
                self.model.transform(tensor_spec(tensor), source, destination).us
            ),
            self._crossing,
            name=session.model.name,
            content_hash=session.model.content_hash,
        )

    def candidate(self, subgraph: Subgraph, decision: Decision) -> Priced | Decline:
        """Price of a sub-graph under a decision; of a concatenation, what it has to copy."""
        work = self.session.asked(subgraph, decision)
        estimate = self.session.roofline.estimate(work, decision)
        answer = estimate if self.cost == "roofline" else self._answer(subgraph, decision)
        if isinstance(answer, Infeasible):
            return Decline(
                subgraph=subgraph.id,
                operator=subgraph.anchor,
                decision=str(decision),
                got=answer.reason,
                expected="a candidate that builds and runs",
            )
        copied = self.session.in_place.copied(subgraph, decision)
        return Priced(
            us=answer.us * copied + fetching_us(work, decision),
            spread_us=answer.spread_us * copied,
            source=answer.source,
            score_us=estimate.us,
        )

    def _answer(self, subgraph: Subgraph, decision: Decision) -> Cost | Infeasible:
        """What the cost model says; where it never measured tuned code, what was measured while tuning."""
        answer = self.model.subgraph(self.session.asked(subgraph, decision), decision)
        record = self.session.records.get((subgraph.structural_hash, decision))
        if record is None or isinstance(answer, Infeasible) or answer.source == "measured":
            return answer
        us = recorded_us(record)
        return Cost(us=us, spread_us=TUNED_SPREAD * us, source="tuned")

    def _crossing(self, tensor: Tensor, source: str, destination: str) -> float:
        """What handing over costs: between memories a copy.

        Within one, nothing where the host hands over or takes: it does so whoever computes. Nor between units that run alike.
        A tensor that comes from, or also goes to, a unit that knows no larger tensors is copied into a concatenation.
        """
        backends = [BACKENDS["cpu" if unit == HOST else unit] for unit in (source, destination)]
        ends = [backend.runtime for backend in backends]
        if backends[0].device != backends[1].device:
            us = self._copy(tensor, *ends)
        elif HOST in (source, destination) or ends[0] == ends[1]:
            return 0.0
        else:
            us = self.model.crossing(tensor_spec(tensor), *ends).us
        if (tensor.producer, tensor.output_index) in self.session.in_place.parts:
            gbps = self.session.profile.peaks.cache_gbps
            us += 2 * tensor.bytes / gbps * 1e-3
        return us

    def _copy(self, tensor: Tensor, source: str, destination: str) -> float:
        """From one memory to another: what was measured, else what reading takes."""
        spec = replace(tensor_spec(tensor), dtype="float32")  # what was measured; bytes are bytes
        cost = self.model.store.boundary("crossing", source, destination, spec)
        if cost is not None:
            return cost.us
        peaks = self.session.profile.peaks
        return peaks.launch_us + tensor.bytes / peaks.memory_gbps * 1e-3


def warn_of_unknown_machine(session: Session) -> None:
    """Say that predictions are less certain where the learned cost model has no data of the machine."""
    if not session.learned.knows_machine:
        logger.warning(
            "the cost model has not seen %s with %d threads: its predictions are less certain%s",
            "this machine" if session.machine is None else session.described.cpu,
            session.threads,
            "; `layoutsel calibrate` adapts it within a minute" if session.machine is None else "",
        )


def fetching_us(work: Workload, decision: Decision) -> float:
    """What a kernel takes more within a plan whose threads share the output channels, and each read all of the input.

    All kernels before it left each core a part of that. Measured alone, every core has had all of it from the start.
    """
    parts = work.hints.get(str(decision), {}).get("parts", 1.0)
    if parts == 1:
        return 0.0
    nbytes = 2 if decision.precision == BF16 else 4
    return prod(work.inputs[0]) * nbytes * (1 - 1 / parts) / FETCH_GBPS * 1e-3
