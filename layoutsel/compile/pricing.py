"""Prices of the candidates and boundaries of a session, by a cost model."""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

from layoutsel.building.problem import Priced, planning_problem
from layoutsel.building.workloads import tensor_spec
from layoutsel.core.workload import INTERRUPTED, Cost, Estimate, Infeasible
from layoutsel.cost.alike import pair_alike
from layoutsel.cost.graph import Subgraph
from layoutsel.cost.in_plan import InPlan
from layoutsel.cost.measured import MeasuredCost
from layoutsel.cost.model import BoundaryQuestion, Question
from layoutsel.cost.place import HOST, Place, memory_name
from layoutsel.planning.hybrid import GUESSED
from layoutsel.planning.prices import UnpricedBoundary
from layoutsel.planning.problem import PlanningProblem
from tvm_passes.backends import BACKENDS
from tvm_passes.decision import Decision
from tvm_passes.errors import Decline
from tvm_passes.tuned import recorded_us
from tvm_passes.units.entry import HOST_UNIT

if TYPE_CHECKING:
    from layoutsel.compile.offers import Offers
    from layoutsel.compile.session import Session

logger = logging.getLogger(__name__)

TUNED_SPREAD = 0.2
"""Relative uncertainty of times measured while tuning, when the weights were in the cache."""
IN_PLAN = 0.05
"""Relative uncertainty of a plan's time for what happens between neighbours.

Half the interquartile range of measured over predicted time of whole plans.
"""


Candidate = tuple[Subgraph, Decision]
"""A sub-graph and its decision."""


@dataclass(frozen=True)
class Pricing:
    """Prices of candidates and boundaries by a cost model; equal ones are asked for once."""

    offers: Offers
    """Candidates of the session."""
    model: MeasuredCost
    """Cost model with the store of measurements."""
    cost: str = "learned"
    """One of :data:`layoutsel.core.choices.COSTS`; ``roofline`` needs only the machine's peaks."""

    @cached_property
    def _in_plan(self) -> InPlan:
        works = self.offers.workloads.values()
        return InPlan(self.offers.costs.profile.peaks, sum(work.weight_bytes for work in works))

    def in_plan_us(self, question: Question) -> float:
        """Price what a candidate takes within a plan in addition to its time alone."""
        return self._in_plan.us(question.workload, question.decision)

    def problem(self) -> PlanningProblem:
        """Make the planning problem of all candidates, with the session's objective and limits."""
        session = self.offers.session
        offered = [
            (subgraph, decision)
            for subgraph in session.graph.subgraphs
            for decision in self.offers.candidates[subgraph.id].decisions
        ]
        prices = {
            (subgraph.id, decision): price
            for (subgraph, decision), price in zip(offered, self.candidates(offered), strict=True)
        }
        problem = planning_problem(
            session.graph,
            session.functions,
            self.offers.candidates,
            lambda subgraph, decision: prices[subgraph.id, decision],
            self.boundaries,
            name=session.model.name,
            content_hash=session.model.content_hash,
        )
        return replace(
            problem,
            objective=session.objective,
            limits=session.precision.limits,
            stands_for=stands_for(session),
            shared_spread=self._shared_spread(problem),
        )

    def _shared_spread(self, problem: PlanningProblem) -> float:
        """Return the relative uncertainty that the costs of a plan share.

        It is that of the cheapest candidate of each sub-graph; others resemble them.
        """
        best = {node.id: min(node.options, key=lambda o: o.cost_us) for node in problem.nodes}
        learned = [
            Question(self.offers.asked(subgraph, option.decision), option.decision)
            for subgraph in self.offers.session.graph.subgraphs
            if (option := best[subgraph.id]).source == "learned"
        ]
        total_us = max(sum(option.cost_us for option in best.values()), 1e-9)
        shared_us = self.offers.costs.learned.shared_spread_us(learned) if learned else 0.0
        return math.hypot(IN_PLAN, shared_us / total_us)

    def candidate(self, subgraph: Subgraph, decision: Decision) -> Priced | Decline:
        """Price a candidate; a concatenation costs only the copies that it needs."""
        return self.candidates([(subgraph, decision)])[0]

    def candidates(self, offered: Sequence[Candidate]) -> list[Priced | Decline]:
        """Price candidates, in order.

        Equal candidates, and those on identical devices, are one question.
        """
        stand_ins = [
            (subgraph, self.offers.measured_as(decision)) for subgraph, decision in offered
        ]
        asked = [Question(self.offers.asked(s, decision), decision) for s, decision in stand_ins]
        keys = [(question.workload.key, question.decision) for question in asked]
        distinct = dict(zip(keys, asked, strict=True))
        scores = dict(
            zip(
                distinct, self.offers.costs.roofline.subgraphs(list(distinct.values())), strict=True
            )
        )
        answers = scores
        if self.cost != "roofline":
            answers = dict(
                zip(distinct, self.model.subgraphs(list(distinct.values())), strict=True)
            )
        return [
            self._priced(candidate, question, answers[key], scores[key])
            for candidate, question, key in zip(offered, asked, keys, strict=True)
        ]

    def _priced(
        self,
        candidate: Candidate,
        question: Question,
        answer: Cost | Infeasible,
        score: Cost | Infeasible,
    ) -> Priced | Decline:
        subgraph, decision = candidate
        if self.cost != "roofline":
            answer = self._tuned(subgraph, question, answer)
        if isinstance(answer, Infeasible):
            return Decline(
                subgraph=subgraph.id,
                operator=subgraph.anchor,
                decision=str(decision),
                got=answer.reason,
                expected="a candidate that builds and runs",
            )
        assert isinstance(score, Cost)  # a roofline never declines
        copied = self.offers.in_place.copied(subgraph, decision)
        # A roofline counts all traffic already.
        more_us = 0.0 if answer.source == GUESSED else self.in_plan_us(question)
        return Priced(
            us=(answer.us + more_us) * copied,
            spread_us=answer.spread_us * copied,
            source=answer.source,
            score_us=score.us,
        )

    def _tuned(
        self, subgraph: Subgraph, question: Question, answer: Cost | Infeasible
    ) -> Cost | Infeasible:
        """Replace the model's answer for tuned code by the time measured while tuning.

        A measurement, or an answer marked as interrupted, stays.
        """
        record = self.offers.records.get((subgraph.structural_hash, question.decision))
        if (
            record is None
            or isinstance(answer, Infeasible)
            or answer.source in ("measured", INTERRUPTED)
        ):
            return answer
        us = recorded_us(record)
        tuned = Estimate(us, TUNED_SPREAD * us, "tuned")
        return question.workload.cost(tuned, question.decision)

    def boundaries(self, unpriced: Sequence[UnpricedBoundary]) -> list[float]:
        """Price boundaries, microseconds."""
        asked = [_ASKED[boundary.kind](self, boundary) for boundary in unpriced]
        distinct = list(dict.fromkeys(question for question in asked if question is not None))
        found = dict(zip(distinct, self.model.boundaries(distinct), strict=True))
        return [
            0.0 if question is None else found[question].us + self._joining_us(boundary)
            for question, boundary in zip(asked, unpriced, strict=True)
        ]

    def _transform(self, boundary: UnpricedBoundary) -> BoundaryQuestion:
        """Make the question for a layout transform on the host."""
        spec = tensor_spec(boundary.tensor)
        source, destination = boundary.source.layout, boundary.destination.layout
        return BoundaryQuestion(spec, Place(source), Place(destination))

    def _crossing(self, boundary: UnpricedBoundary) -> BoundaryQuestion | None:
        """Make the question for a hand-over within a memory; None if it is free.

        It is free if the host supplies or takes the tensor, whichever unit computes, and between
        units of one runtime.
        """
        units = boundary.source.unit, boundary.destination.unit
        if HOST in units:
            return None
        ends = [BACKENDS[unit].runtime for unit in units]
        if ends[0] == ends[1]:
            return None
        source, destination = (Place(unit=unit) for unit in ends)
        return BoundaryQuestion(tensor_spec(boundary.tensor), source, destination)

    def _copy(self, boundary: UnpricedBoundary) -> BoundaryQuestion:
        """Make the question for a copy between memories.

        Only bytes matter, so measurements of f32 hold for all types.
        """
        spec = replace(tensor_spec(boundary.tensor), dtype="float32")
        session = self.offers.session
        devices = pair_alike(boundary.source.device, boundary.destination.device, session.alike)
        source, destination = (
            Place(unit=HOST_UNIT if one.is_host else session.unit_of(one), device=one)
            for one in devices
        )
        return BoundaryQuestion(spec, source, destination)

    def _joining_us(self, boundary: UnpricedBoundary) -> float:
        """Price the extra copy of a concatenation's part, microseconds.

        It is needed if the producing unit cannot write into the concatenated buffer.
        """
        tensor = boundary.tensor
        in_place = (tensor.producer, tensor.output_index) in self.offers.in_place.parts
        if boundary.kind == "transform" or not in_place:
            return 0.0
        return 2 * tensor.bytes / self.offers.costs.profile.peaks.cache_gbps * 1e-3


_ASKED: Mapping[str, Callable[[Pricing, UnpricedBoundary], BoundaryQuestion | None]] = {
    "transform": Pricing._transform,
    "crossing": Pricing._crossing,
    "copy": Pricing._copy,
}
"""Functions that make the question to the cost model, by kind of boundary; None if it is free."""


def priced_by(offers: Offers, model: MeasuredCost, cost: str = "learned") -> PlanningProblem:
    """Make the planning problem with the present prices of `model`, without measuring or pins."""
    return Pricing(offers, model, cost).problem()


def stands_for(session: Session) -> Mapping[str, int]:
    """Return the maximum number of devices that each offered device stands for, by memory.

    Not all of a group of identical devices are offered; those that are stand for the others. The
    memory of a device that stands only for itself is absent.
    """
    found: dict[str, int] = {}
    for unit in session.devices:
        fellows = Counter(session.alike[device] for device in session.devices_of(unit))
        for group in session.offered_devices(unit):
            count = -(-fellows[session.alike[group[0]]] // len(group))
            found |= {memory_name(device): count for device in group if count > 1}
    return found


def warn_of_unknown_machine(offers: Offers) -> None:
    """Warn of larger uncertainty if the learned cost model has no data of the machine."""
    session = offers.session
    if not offers.costs.learned.knows_machine:
        logger.warning(
            "the cost model has not seen %s with %d threads: its predictions are less certain%s",
            "this machine" if session.machine is None else session.described.cpu,
            session.threads,
            "; `layoutsel calibrate` adapts it within a minute" if session.machine is None else "",
        )
