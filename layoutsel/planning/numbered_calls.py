"""Calls of plans with numbers in place of names, for searches over many partial schedules."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product

from layoutsel.cost.place import HOST
from layoutsel.cost.tensor import KINDS
from layoutsel.planning.calls import BoundaryStep, Call, Calls
from layoutsel.planning.problem import Option, PlanningProblem
from layoutsel.planning.resources import Resources
from tvm_passes.decision import Decision, SubgraphId

Candidates = Mapping[SubgraphId, Sequence[Option]]
"""Candidates of each sub-graph, in topological order."""

NOBODY = -1
"""Number of an absent producer, previous step, caller or candidate."""


@dataclass(frozen=True, slots=True)
class NumberedStep:
    """One step of a call."""

    number: int
    """Number of the boundary; :data:`NOBODY` for a sub-graph."""
    producer: int
    """Producer of the tensor that a boundary moves; :data:`NOBODY` for an input of the model."""
    after: int
    """Previous boundary of the same tensor."""
    caller: int
    """Resource that starts the step."""
    busy_us: tuple[tuple[int, float], ...]
    """Occupied resources, with the time of occupation, microseconds."""
    duration_us: float
    """Time from the start of the step until its result is available, microseconds."""


NumberedCall = tuple[tuple[NumberedStep, ...], NumberedStep]
"""Boundaries of a call, in order, and its own step."""


class NumberedCalls:
    """Calls of all plans with the given candidates.

    Sub-graphs have their positions in topological order as numbers; the hand-over of the model's
    results has the next one.
    """

    def __init__(self, problem: PlanningProblem, calls: Calls, candidates: Candidates) -> None:
        self._calls = calls
        self._options = list(candidates.values())
        self.ids = list(candidates)
        """Sub-graph of each number."""
        numbers: dict[SubgraphId | None, int] = {id_: n for n, id_ in enumerate(self.ids)}
        self.numbers = numbers | {None: NOBODY}
        """Number of each sub-graph; :data:`NOBODY` for None, the inputs of the model."""
        self.makers = [
            [self.numbers[maker] for maker in calls.makers(id_)] for id_ in (*self.ids, None)
        ]
        """Producers of the tensors that each call reads."""
        own = [
            [problem.resources.compute(o.decision.unit, o.memory, o.cost_us) for o in options]
            for options in self._options
        ]
        possible = [work for options in own for work in options]
        possible += _possible_boundaries(problem, self._options)
        callers = {work.called_by for work in possible}
        names = {name for work in possible for name in work.busy_us} | (callers - {None})
        self._resources: dict[str | None, int] = {
            name: number for number, name in enumerate(sorted(map(str, names)))
        }
        self.resources = len(self._resources)
        """Number of resources."""
        self._resources[None] = NOBODY
        self.caller = self._resources[next(iter(callers))] if len(callers) == 1 else NOBODY
        """Resource that starts all steps; :data:`NOBODY` if there are several or none."""
        self.works = [[self._step(work) for work in options] for options in own]
        """Own step of each sub-graph, by candidate."""
        self._steps: dict[tuple[BoundaryStep, int], int] = {}
        self._producers: list[int] = []
        self._known: dict[tuple[int, ...], NumberedCall] = {}

    def call(self, number: int, candidate: int, chosen: Sequence[int]) -> NumberedCall:
        """Return one call, for the candidates `chosen` of the sub-graph and its producers."""
        makers = self.makers[number]
        key = (number, candidate, *(chosen[maker] for maker in makers))
        if key not in self._known:
            concerned = [*makers, *([number] if number < len(self.ids) else [])]
            decisions = {
                self.ids[one]: self._options[one][chosen[one]].decision for one in concerned
            }
            id_ = self.ids[number] if number < len(self.ids) else None
            self._known[key] = self._numbered(self._calls.call(id_, decisions), chosen)
        return self._known[key]

    def producer_of(self, step: int) -> int:
        """Return the producer of the tensor that a boundary moves."""
        return self._producers[step]

    def decisions(self, chosen: Sequence[int]) -> dict[SubgraphId, Decision]:
        """Return the decisions of the candidates `chosen`, one for each sub-graph."""
        return {
            id_: options[candidate].decision
            for id_, options, candidate in zip(self.ids, self._options, chosen, strict=True)
        }

    def _numbered(self, call: Call, chosen: Sequence[int]) -> NumberedCall:
        brings = tuple(
            self._step(
                one.resources,
                number=self._step_number(one, chosen),
                producer=self.numbers[one.producer],
                after=NOBODY if one.after is None else self._step_number(one.after, chosen),
            )
            for one in call.brings
        )
        return brings, self._step(call.resources)

    def _step_number(self, one: BoundaryStep, chosen: Sequence[int]) -> int:
        producer = self.numbers[one.producer]
        key = one, NOBODY if producer == NOBODY else chosen[producer]
        if key not in self._steps:
            self._steps[key] = len(self._steps)
            self._producers.append(producer)
        return self._steps[key]

    def _step(
        self,
        work: Resources,
        number: int = NOBODY,
        producer: int = NOBODY,
        after: int = NOBODY,
    ) -> NumberedStep:
        return NumberedStep(
            number=number,
            producer=producer,
            after=after,
            caller=self._resources[work.called_by],
            busy_us=tuple((self._resources[name], us) for name, us in work.busy_us.items()),
            duration_us=work.duration_us,
        )


def _possible_boundaries(
    problem: PlanningProblem, options: Sequence[Sequence[Option]]
) -> list[Resources]:
    """List the resources of boundaries of all kinds between all memories."""
    memories = sorted({HOST, *(option.memory for some in options for option in some)})
    return [
        step
        for kind, source, destination in product(KINDS, memories, memories)
        for step in problem.resources.boundary(kind, source, destination, 1.0)
    ]
