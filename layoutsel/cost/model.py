"""Interface of all cost models: the cost of a sub-graph under a decision, and of a boundary."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import islice
from operator import add
from types import MappingProxyType

from layoutsel.core.workload import BoundaryTensor, Cost, Estimate, Infeasible, Workload
from layoutsel.cost.conditions import AS_MEASURED, Conditions, uncertainty
from layoutsel.cost.place import HOST, Place
from layoutsel.cost.slowdown import LoadedRun, shipped_slowdown
from tvm_passes.decision import Decision, parse_placed_unit


@dataclass(frozen=True)
class Question:
    """A candidate to be priced: a sub-graph, a decision and the state of the machine."""

    workload: Workload
    """Features of the sub-graph."""
    decision: Decision
    """Unit, layout, precision and algorithm."""
    conditions: Conditions = AS_MEASURED
    """State of the machine."""

    @property
    def flops(self) -> float:
        """Number of floating-point operations."""
        return self.workload.flops

    @property
    def is_on_host(self) -> bool:
        """True if the candidate runs on the cores of the host."""
        return self.decision.device.is_host


@dataclass(frozen=True)
class BoundaryQuestion:
    """A boundary to be priced: a tensor with the places of its producer and its consumer."""

    tensor: BoundaryTensor
    """Tensor that passes the boundary."""
    source: Place
    """Place where the producer leaves the tensor."""
    destination: Place
    """Place where the consumer expects the tensor."""
    conditions: Conditions = AS_MEASURED
    """State of the machine."""

    @property
    def steps(self) -> Iterator[BoundaryPart]:
        """Yield the layout transform and the hand-over, as far as the places differ."""
        for kind, place in KINDS.items():
            ends = getattr(self.source, place), getattr(self.destination, place)
            if ends[0] != ends[1]:
                yield BoundaryPart(kind, self.tensor, *ends, self.conditions)


TRANSFORM, CROSSING = "transform", "crossing"
KINDS: Mapping[str, str] = MappingProxyType({TRANSFORM: "layout", CROSSING: "placed_unit"})
"""Kinds of boundary steps, each with the field of a place that it changes."""


@dataclass(frozen=True)
class BoundaryPart:
    """One step of a boundary: a layout transform, or a hand-over to another unit or device."""

    kind: str
    """:data:`TRANSFORM` or :data:`CROSSING`."""
    tensor: BoundaryTensor
    """Tensor that passes the boundary."""
    source: str
    """Layout, or unit as written by :attr:`~layoutsel.cost.place.Place.placed_unit`."""
    destination: str
    """Layout or unit of the same kind, different from `source`."""
    conditions: Conditions = AS_MEASURED
    """State of the machine."""

    @property
    def flops(self) -> float:
        """Number of floating-point operations: none."""
        return 0.0

    @property
    def is_on_host(self) -> bool:
        """True if the step is work for the cores of the host."""
        ends = (self.source, self.destination) if self.kind == CROSSING else ()
        return all(end == HOST or parse_placed_unit(end)[1].is_host for end in ends)


class CostModel(ABC):
    """Answers the cost of sub-graphs under decisions and of boundaries, with uncertainties."""

    @abstractmethod
    def subgraphs(self, questions: Sequence[Question]) -> list[Cost | Infeasible]:
        """Compute the cost of one run of each sub-graph, without boundaries, in order."""

    @abstractmethod
    def steps(self, steps: Sequence[BoundaryPart]) -> list[Cost]:
        """Compute the cost of each step of a boundary, in order."""

    def boundaries(self, questions: Sequence[BoundaryQuestion]) -> list[Cost]:
        """Compute the cost of each boundary as the sum of its steps, in order."""
        parts = [tuple(question.steps) for question in questions]
        answers = iter(self.steps([step for some in parts for step in some]))
        costs = [list(islice(answers, len(some))) for some in parts]
        return [reduce(add, some) if some else FREE for some in costs]

    def subgraph(
        self, workload: Workload, decision: Decision, conditions: Conditions = AS_MEASURED
    ) -> Cost | Infeasible:
        """Compute the cost of one run of the sub-graph without boundaries."""
        return self.subgraphs([Question(workload, decision, conditions)])[0]

    def boundary(
        self,
        tensor: BoundaryTensor,
        source: Place,
        destination: Place,
        conditions: Conditions = AS_MEASURED,
    ) -> Cost:
        """Compute the cost of a boundary: layout transform, hand-over, or both."""
        return self.boundaries([BoundaryQuestion(tensor, source, destination, conditions)])[0]


FREE = Cost(time_us=Estimate(0.0), bytes_moved=Estimate(0.0), memory_bytes=Estimate(0.0))
"""Cost of a boundary between equal places."""


def under(
    costs: Sequence[Cost], asked: Sequence[Question | BoundaryPart], known: Conditions
) -> list[Cost]:
    """Apply costs of the conditions `known` to the conditions that were asked for.

    A load slows work on the host down; any other difference only widens the uncertainty.
    """
    found = list(costs)
    numbers = [n for n, one in enumerate(asked) if one.conditions.is_loaded and one.is_on_host]
    if numbers:
        runs = [LoadedRun.of(costs[n], asked[n].conditions, known) for n in numbers]
        for number, slowed in zip(numbers, shipped_slowdown().applied(runs), strict=True):
            found[number] = slowed
    return [
        cost.widened(uncertainty(one.conditions, known))
        for cost, one in zip(found, asked, strict=True)
    ]
