"""The one question that every chooser asks: what does a sub-graph cost under a decision, and what does a boundary cost."""

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
from layoutsel.cost.place import Place
from tvm_passes.decision import Decision


@dataclass(frozen=True)
class Question:
    """A candidate to be priced: a sub-graph, a decision and the state of the machine."""

    workload: Workload
    decision: Decision
    conditions: Conditions = AS_MEASURED


@dataclass(frozen=True)
class BoundaryQuestion:
    """A boundary to be priced: a tensor and the places that it goes from and to."""

    tensor: BoundaryTensor
    source: Place
    destination: Place
    conditions: Conditions = AS_MEASURED

    @property
    def steps(self) -> Iterator[BoundaryPart]:
        """The layout transform and the hand-over that the boundary consists of; none between equal places."""
        for kind, place in KINDS.items():
            ends = getattr(self.source, place), getattr(self.destination, place)
            if ends[0] != ends[1]:
                yield BoundaryPart(kind, self.tensor, *ends, self.conditions)


TRANSFORM, CROSSING = "transform", "crossing"
KINDS: Mapping[str, str] = MappingProxyType({TRANSFORM: "layout", CROSSING: "placed_unit"})
"""Kinds of steps of a boundary, and the field of a place that each changes."""


@dataclass(frozen=True)
class BoundaryPart:
    """Part of a boundary: a change of layout (``transform``), or of unit or device (``crossing``)."""

    kind: str
    tensor: BoundaryTensor
    source: str
    """Layout, or unit as :attr:`~layoutsel.cost.place.Place.placed_unit` writes it."""
    destination: str
    """Another one."""
    conditions: Conditions = AS_MEASURED


class CostModel(ABC):
    """Answers the cost of (sub-graph, decision, conditions) and of boundaries, each with its uncertainty."""

    @abstractmethod
    def subgraphs(self, questions: Sequence[Question]) -> list[Cost | Infeasible]:
        """Cost of one run of each sub-graph, boundaries excluded, in the order of `questions`."""

    @abstractmethod
    def steps(self, steps: Sequence[BoundaryPart]) -> list[Cost]:
        """Cost of each step of a boundary, in the order of `steps`."""

    def boundaries(self, questions: Sequence[BoundaryQuestion]) -> list[Cost]:
        """Cost of each boundary, in the order of `questions`: the sum of its steps."""
        parts = [tuple(question.steps) for question in questions]
        answers = iter(self.steps([step for some in parts for step in some]))
        costs = [list(islice(answers, len(some))) for some in parts]
        return [reduce(add, some) if some else FREE for some in costs]

    def subgraph(
        self, workload: Workload, decision: Decision, conditions: Conditions = AS_MEASURED
    ) -> Cost | Infeasible:
        """Cost of one run of the sub-graph, boundaries excluded."""
        return self.subgraphs([Question(workload, decision, conditions)])[0]

    def boundary(
        self,
        tensor: BoundaryTensor,
        source: Place,
        destination: Place,
        conditions: Conditions = AS_MEASURED,
    ) -> Cost:
        """Cost of bringing `tensor` from `source` to `destination`: layout transform, hand-over, or both."""
        return self.boundaries([BoundaryQuestion(tensor, source, destination, conditions)])[0]


FREE = Cost(time_us=Estimate(0.0), bytes_moved=Estimate(0.0), memory_bytes=Estimate(0.0))
"""Cost of a boundary between equal places."""


def under(cost: Cost, asked: Conditions, known: Conditions) -> Cost:
    """Cost under the conditions `asked` by a model that only has data of the conditions `known`."""
    return cost.widened(uncertainty(asked, known))
