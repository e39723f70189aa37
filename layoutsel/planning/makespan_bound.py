"""Lower bound on the makespans of all schedules of all plans."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from layoutsel.cost.place import HOST, OUTSIDE, Place, memory_name
from layoutsel.cost.tensor import KINDS, Tensor, is_boundary
from layoutsel.planning.calls import reads_of
from layoutsel.planning.folding import relaxed_if_wide
from layoutsel.planning.problem import Option, PlanningProblem, PricedSubgraph, source_places
from layoutsel.planning.programme import Programme, Term
from layoutsel.planning.resources import Resources, in_turn
from layoutsel.planning.symmetry import twins
from tvm_passes.decision import SubgraphId

_TOLERANCE = 1e-5
"""Maximum error of HiGHS in a bound, as a share of :func:`_horizon_us`."""
_GAP = 0.003
"""Relative gap at which HiGHS may stop."""
_NODES = 300
"""Maximum number of branch-and-bound nodes.

Equal problems get equal bounds, except on machines so slow that the time limit comes first.
"""


@dataclass(frozen=True, kw_only=True)
class Relaxed:
    """Best plan of a relaxed problem, in which steps on one resource may overlap."""

    bound_us: float
    """Lower bound on the schedules of all decisions, microseconds."""
    memories: Mapping[SubgraphId, str]
    """Memory of each sub-graph in the relaxed plan.

    Empty if none was found in time, or if there are too many memories.
    """


def relaxed(problem: PlanningProblem, *, time_limit_s: float = 6.0) -> Relaxed:
    """Divide the sub-graphs of `problem` over its memories, by an integer programme.

    The makespan is at least the longest path, and the work of every resource. A sub-graph costs as
    much as its cheapest candidate in a memory; transforms cost nothing; a copy costs once per
    tensor and memory. The longest path alone, with transforms, is a second bound. If there are many
    memories, those of one kind are merged (:func:`~layoutsel.planning.folding.folded`), and the
    result has no memories.
    """
    narrow = relaxed_if_wide(problem)
    if narrow is not None:
        return Relaxed(bound_us=relaxed(narrow, time_limit_s=time_limit_s).bound_us, memories={})
    horizon_us = _horizon_us(problem)
    programme = _Division(problem, horizon_us)
    result = programme.minimised(time_limit_s=time_limit_s, gap=_GAP, nodes=_NODES)
    divided = -np.inf if result.mip_dual_bound is None else float(result.mip_dual_bound)
    return Relaxed(
        bound_us=max(_path_bound(problem), (divided - _TOLERANCE) * horizon_us),
        memories={} if result.x is None else programme.division(result.x),
    )


def _path_bound(problem: PlanningProblem) -> float:
    """Compute the longest path if consumers may choose their producers' options, microseconds."""
    reads = reads_of(problem)
    ends: dict[SubgraphId, np.ndarray] = {}
    longest = 0.0
    for node in problem.nodes:
        start = np.zeros(len(node.options))
        for tensor, index in reads[node.id]:
            places = [option.wanted[index] for option in node.options]
            start = np.maximum(start, _arrivals(problem, tensor, places, ends))
        own = [_computing(problem, option).duration_us for option in node.options]
        ends[node.id] = start + np.array(own)
        longest = max(longest, float(ends[node.id].min()))
    for tensor in problem.tensors:
        if any(use.consumer is None for use in tensor.uses):
            longest = max(longest, float(_arrivals(problem, tensor, [OUTSIDE], ends)[0]))
    return longest


def _arrivals(
    problem: PlanningProblem,
    tensor: Tensor,
    wanted: Sequence[Place],
    ends: Mapping[SubgraphId, np.ndarray],
) -> np.ndarray:
    """Compute the earliest time at which a tensor can be at each wanted place, microseconds."""
    sources = source_places(problem.by_id, tensor)
    times = np.array([[bringing_us(problem, tensor, s, w) for w in wanted] for s in sources])
    made = ends[tensor.producer] if tensor.producer is not None else np.zeros(1)
    return (made[:, None] + times).min(axis=0)


def _computing(problem: PlanningProblem, option: Option) -> Resources:
    return problem.resources.compute(option.decision.unit, option.memory, option.cost_us)


def bringing_us(problem: PlanningProblem, tensor: Tensor, source: Place, wanted: Place) -> float:
    """Compute the least time of all boundaries between two places, microseconds.

    They follow each other, except that a hand-over may have been made for another consumer.
    """
    times_us = {
        kind: _bounding(
            problem, kind, source.memory, wanted.memory, tensor.price(kind, source, wanted)
        ).duration_us
        for kind in KINDS
        if is_boundary(kind, source, wanted)
    }
    crossing_us = times_us.pop("crossing", 0.0)
    others_us = sum(times_us.values())
    # One hand-over to a unit serves all layouts, so it need not wait for this transform.
    is_shared = len(tensor.uses) > 1
    return max(others_us, crossing_us) if is_shared else others_us + crossing_us


def _horizon_us(problem: PlanningProblem) -> float:
    """Compute an upper bound on the relaxed makespan, microseconds.

    It is the sum of all cheapest sub-graphs and all copies.
    """
    computing = sum(
        min(work.duration_us for work in _least(problem, node).values()) for node in problem.nodes
    )
    copying = sum(
        sum(_copying(problem, pair, us).duration_us for pair, us in tensor.copy_us.items())
        for tensor in problem.tensors
    )
    return max(computing + copying, 1e-9)


def _copying(problem: PlanningProblem, pair: tuple[str, str], us: float) -> Resources:
    return _bounding(problem, "copy", *pair, us)


def _bounding(
    problem: PlanningProblem, kind: str, source: str, destination: str, us: float
) -> Resources:
    return in_turn(problem.resources.boundary(kind, source, destination, us))


class _Division(Programme):
    """Programme that chooses a memory for each sub-graph, with a lower bound on the makespan.

    The makespan is at least the length of any path, and the work of any resource. Work is added up
    over the whole network, and between each two neighbouring waists: a resource that is idle
    between two waists cannot help after the second. A resource that stands for several does as much
    work as they do. Variables are the makespan; the memory of each sub-graph and its end; and the
    copies of tensors between memories. The id None stands for the model's inputs and results. All
    times are shares of `horizon_us`, because solvers are most exact for numbers near 1.
    """

    def __init__(self, problem: PlanningProblem, horizon_us: float) -> None:
        super().__init__()
        self._problem, self._horizon_us = problem, horizon_us
        self._least = {node.id: _least(problem, node) for node in problem.nodes}
        self._is_in = {None: self._memories([HOST])} | {
            id_: self._memories(least) for id_, least in self._least.items()
        }
        # The id None stands for the beginning and the end of the network.
        self._ready = {id_: self.variables([0.0]) for id_ in self._is_in}
        self._end = {**self._ready, None: self.variables([1.0])}
        self._parts = _Parts(problem)
        self._work: dict[tuple[_Part, str], list[Term]] = {}
        for id_, least in self._least.items():
            self._follows(id_, [])
            for part in self._parts.of(id_):
                for memory, variable in self._is_in[id_].items():
                    self._busy(part, least[memory], variable)
        for tensor in problem.tensors:
            self._tensor(tensor)
        for group in twins(problem):
            self._used_in_order([memory_name(device) for device in group])
        for (part, resource), terms in self._work.items():
            count = problem.stands_for.get(resource, 1)
            between = [(self._end[part[1]], count), (self._ready[part[0]], -count)]
            self.row([*between, *_negative(terms)], 0.0, np.inf)

    def division(self, values: np.ndarray) -> dict[SubgraphId, str]:
        """Read the memory of each sub-graph from the `values` of all variables."""
        return {
            id_: max(self._is_in[id_].items(), key=lambda place: float(values[place[1]]))[0]
            for id_ in self._least
        }

    def _used_in_order(self, memories: Sequence[str]) -> None:
        """Forbid the use of an interchangeable memory before the one that precedes it in the list.

        Each plan has an equal one that satisfies this. A variable states if a memory was used so
        far.
        """
        used: dict[str, int | None] = dict.fromkeys(memories)
        for id_ in self._least:
            before = dict(used)
            for earlier, memory in itertools.pairwise(memories):
                if (variable := self._is_in[id_].get(memory)) is not None:
                    last = before[earlier]
                    terms = [(variable, 1.0), *([] if last is None else [(last, -1.0)])]
                    self.row(terms, -np.inf, 0.0)
            for memory in memories:
                if (variable := self._is_in[id_].get(memory)) is not None:
                    used[memory] = self._used(before[memory], variable)

    def _used(self, before: int | None, variable: int) -> int:
        """Add a variable that is at most the sum of `before` and `variable`."""
        used = self.variables([0.0])
        terms = [(used, 1.0), (variable, -1.0), *([] if before is None else [(before, -1.0)])]
        self.row(terms, -np.inf, 0.0)
        return used

    def _memories(self, memories: Iterable[str]) -> dict[str, int]:
        """Add one variable for each memory; exactly one of them is 1."""
        found = {memory: self.variables([0.0], integral=True) for memory in memories}
        self.row([(variable, 1.0) for variable in found.values()], 1.0, 1.0)
        return found

    def _follows(self, id_: SubgraphId | None, terms: Sequence[Term]) -> None:
        """Add the row that a sub-graph ends at least its computation after the time in `terms`."""
        least = self._least[id_] if id_ is not None else {}
        computing = [
            (self._is_in[id_][memory], work.duration_us / self._horizon_us)
            for memory, work in least.items()
        ]
        self.row([(self._end[id_], 1.0), *_negative([*terms, *computing])], 0.0, np.inf)

    def _tensor(self, tensor: Tensor) -> None:
        """Add the rows that consumers follow the producer, after a copy shared within a memory."""
        copying = {pair: _copying(self._problem, pair, us) for pair, us in tensor.copy_us.items()}
        copies: dict[tuple[_Part, tuple[str, str]], int] = {}
        for use in tensor.uses:
            crossing = self._crossing(tensor.producer, use.consumer)
            waiting = [
                (variable, copying[pair].duration_us / self._horizon_us)
                for pair, variable in crossing.items()
            ]
            self._follows(use.consumer, [(self._ready[tensor.producer], 1.0), *waiting])
            for part in self._parts.of_copy(tensor.producer, use.consumer):
                for pair, variable in crossing.items():
                    where = (part, pair)
                    if where not in copies:
                        copies[where] = self.variables([0.0])
                        self._busy(part, copying[pair], copies[where])
                    self.row([(copies[where], 1.0), (variable, -1.0)], 0.0, np.inf)

    def _crossing(
        self, producer: SubgraphId | None, consumer: SubgraphId | None
    ) -> dict[tuple[str, str], int]:
        """Add a variable per pair of memories: 1 if producer and consumer compute there."""
        made, taken = self._is_in[producer], self._is_in[consumer]
        both = {pair: self.variables([0.0]) for pair in itertools.product(made, taken)}
        for source, variable in made.items():
            self.row([(variable, -1.0), *((both[source, m], 1.0) for m in taken)], 0.0, 0.0)
        for memory, variable in taken.items():
            self.row([(variable, -1.0), *((both[m, memory], 1.0) for m in made)], 0.0, 0.0)
        return {pair: variable for pair, variable in both.items() if pair[0] != pair[1]}

    def _busy(self, part: _Part, work: Resources, variable: int) -> None:
        """Add a step to the work of a part, by resource; it is done if `variable` is 1."""
        for resource, us in work.busy_us.items():
            term = (variable, us / self._horizon_us)
            self._work.setdefault((part, resource), []).append(term)


_Part = tuple[SubgraphId | None, SubgraphId | None]
"""Part of a network: from the end of one sub-graph to that of another.

None stands for the beginning, or the end, of the network.
"""
_WHOLE: _Part = (None, None)
"""The whole network."""


class _Parts:
    """Parts of a network between its waists: sub-graphs that all others must precede or follow."""

    def __init__(self, problem: PlanningProblem) -> None:
        makers: dict[SubgraphId, set[SubgraphId]] = {
            id_: {tensor.producer for tensor, _ in reads if tensor.producer is not None}
            for id_, reads in reads_of(problem).items()
        }
        before: dict[SubgraphId, set[SubgraphId]] = {}
        for id_, direct in makers.items():
            before[id_] = direct.union(*(before[maker] for maker in direct))
        behind = Counter(itertools.chain.from_iterable(before.values()))
        others = len(before) - 1
        waists = [id_ for id_ in before if len(before[id_]) + behind[id_] == others]
        ends = [None, *waists, None]
        passed = {id_: len(before[id_].intersection(waists)) for id_ in before}
        self._of = {id_: (ends[number], ends[number + 1]) for id_, number in passed.items()}
        self._last = (ends[-2], None)

    def of(self, id_: SubgraphId) -> tuple[_Part, ...]:
        """List the parts in which a sub-graph computes."""
        return _with_whole(self._of[id_])

    def of_copy(
        self, producer: SubgraphId | None, consumer: SubgraphId | None
    ) -> tuple[_Part, ...]:
        """List the parts in which a copy between the two must take place."""
        part = self._last if consumer is None else self._of[consumer]
        begins = part[0] == producer
        is_within = begins or (producer is not None and self._of[producer] == part)
        return _with_whole(part) if is_within else (_WHOLE,)


def _with_whole(part: _Part) -> tuple[_Part, ...]:
    return (_WHOLE,) if part == _WHOLE else (_WHOLE, part)


def _negative(terms: Iterable[Term]) -> list[Term]:
    return [(variable, -factor) for variable, factor in terms]


def _least(problem: PlanningProblem, node: PricedSubgraph) -> dict[str, Resources]:
    """Compute the least work on each resource and the least time of all candidates, by memory."""
    works: dict[str, list[Resources]] = {}
    for option in node.options:
        works.setdefault(option.memory, []).append(_computing(problem, option))
    return {memory: _least_of(some) for memory, some in works.items()}


def _least_of(works: Sequence[Resources]) -> Resources:
    always = [name for name in works[0].busy_us if all(name in work.busy_us for work in works)]
    busy_us = {name: min(work.busy_us[name] for work in works) for name in always}
    least_us = min(work.duration_us for work in works)
    return Resources(busy_us=busy_us, delay_us=least_us - max(busy_us.values(), default=0.0))
