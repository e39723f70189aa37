"""What the candidates and boundaries of a session cost, by a cost model."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from math import prod
from typing import TYPE_CHECKING

from layoutsel.building.asked import tensor_spec
from layoutsel.building.boundaries import HOST_UNIT
from layoutsel.building.problem import Priced, memory_of, planning_problem
from layoutsel.cost.measured import MeasuredCost
from layoutsel.cost.model import INTERRUPTED, Cost, Infeasible, Workload
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
            self._copy,
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
        if (
            record is None
            or isinstance(answer, Infeasible)
            or answer.source in ("measured", INTERRUPTED)
        ):
            return answer
        us = recorded_us(record)
        return Cost(us=us, spread_us=TUNED_SPREAD * us, source="tuned")

    def _crossing(self, tensor: Tensor, source: str, destination: str) -> float:
        """What handing over within a memory costs.

        Nothing where the host hands over or takes: it does so whoever computes. Nor between units that run alike.
        """
        if HOST in (source, destination):
            return 0.0
        ends = [BACKENDS[unit].runtime for unit in (source, destination)]
        if ends[0] == ends[1]:
            return 0.0
        return self.model.crossing(tensor_spec(tensor), *ends).us + self._joining_us(tensor)

    def _copy(self, tensor: Tensor, source: str, destination: str) -> float:
        """What copying from one memory to another costs; bytes are bytes, so what was measured is of f32."""
        spec = replace(tensor_spec(tensor), dtype="float32")
        ends = [self._computing_in(memory) for memory in (source, destination)]
        return self.model.crossing(spec, *ends).us + self._joining_us(tensor)

    def _computing_in(self, memory: str) -> str:
        if memory == HOST:
            return HOST_UNIT
        units = self.session.units.items()
        return next(name for name, unit in units if memory_of(unit.backend) == memory)

    def _joining_us(self, tensor: Tensor) -> float:
        """What a part of a concatenation in place takes more: a unit that knows no larger tensors makes it to be copied."""
        if (tensor.producer, tensor.output_index) not in self.session.in_place.parts:
            return 0.0
        return 2 * tensor.bytes / self.session.profile.peaks.cache_gbps * 1e-3


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
