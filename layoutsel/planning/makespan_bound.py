"""A lower bound on the makespans of all schedules of all plans."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from layoutsel.planning.makespan import reads_of
from layoutsel.planning.problem import (
    HOST,
    KINDS,
    OUTSIDE,
    Option,
    Place,
    PlanningProblem,
    Tensor,
    source_places,
)
from layoutsel.planning.programme import Programme, Term
from tvm_passes.decision import SubgraphId

_TOLERANCE = 1e-5
"""By how much HiGHS may take a bound too high, as a share of :func:`_horizon_us`."""
_GAP = 0.003
"""Relative gap at which it may stop."""
_NODES = 300
"""Of its tree of branches at most: the same problem gets the same bound, but for machines that are slower than the clock."""


@dataclass(frozen=True, kw_only=True)
class Relaxed:
    """The best plan of a problem that asks less: who computes what in which order is nobody's business."""

    bound_us: float
    """No schedule of any decisions is shorter, microseconds."""
    memories: Mapping[SubgraphId, str]
    """Where it has the sub-graphs; empty where the time was over before it had them anywhere."""


def relaxed(problem: PlanningProblem, *, time_limit_s: float = 6.0) -> Relaxed:
    """Divide the sub-graphs of `problem` over its memories, by an integer programme of the longest path and all processors' work.

    In it a sub-graph costs what its cheapest candidate in a memory does, transforms nothing, and a copy once per tensor and
    memory. The longest path alone, with transforms, is a second bound.
    """
    horizon_us = _horizon_us(problem)
    programme = _Division(problem, horizon_us)
    result = programme.minimised(time_limit_s=time_limit_s, gap=_GAP, nodes=_NODES)
    divided = -np.inf if result.mip_dual_bound is None else float(result.mip_dual_bound)
    return Relaxed(
        bound_us=max(_path_bound(problem), (divided - _TOLERANCE) * horizon_us),
        memories={} if result.x is None else programme.division(result.x),
    )


def _path_bound(problem: PlanningProblem) -> float:
    """The longest chain of sub-graphs and boundaries, where every consumer may have its producers as it likes them."""
    reads = reads_of(problem)
    ends: dict[SubgraphId, np.ndarray] = {}
    longest = 0.0
    for node in problem.nodes:
        start = np.zeros(len(node.options))
        for tensor, index in reads[node.id]:
            places = [option.wanted[index] for option in node.options]
            start = np.maximum(start, _arrivals(problem, tensor, places, ends))
        ends[node.id] = start + np.array([option.cost_us for option in node.options])
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
    """When a tensor can be at each of these places at the earliest."""
    sources = source_places(problem.by_id, tensor)
    price = np.array(
        [[sum(tensor.price(kind, s, w) for kind in KINDS) for w in wanted] for s in sources]
    )
    made = ends[tensor.producer] if tensor.producer is not None else np.zeros(1)
    return (made[:, None] + price).min(axis=0)


def _horizon_us(problem: PlanningProblem) -> float:
    """The best plan takes no longer: everything where it is cheapest, one after the other, with all copies that there are."""
    computing = sum(min(_cheapest(node.options).values()) for node in problem.nodes)
    copying = sum(sum(tensor.copy_us.values()) for tensor in problem.tensors)
    return max(computing + copying, 1e-9)


class _Division(Programme):
    """Which memory each sub-graph computes in: the makespan is no less than any path, nor than any processor's work.

    Work counts in all, and between two waists of the network: a processor that has nothing to do between them cannot help
    with what comes behind. Variables are the makespan; whether each sub-graph computes in a memory, and when it ends; and
    whether a tensor is copied from one memory to another. None stands for what hands over the model's inputs and takes its
    outputs. All times are shares of `horizon_us`: programmes of numbers near 1 are what solvers are exact for.
    """

    def __init__(self, problem: PlanningProblem, horizon_us: float) -> None:
        super().__init__()
        self._horizon_us = horizon_us
        self._costs = {
            node.id: {m: us / horizon_us for m, us in _cheapest(node.options).items()}
            for node in problem.nodes
        }
        self._is_in = {None: self._memories([HOST])} | {
            id_: self._memories(costs) for id_, costs in self._costs.items()
        }
        # Of None, the beginning and the end.
        self._ready = {id_: self.variables([0.0]) for id_ in self._is_in}
        self._end = {**self._ready, None: self.variables([1.0])}
        self._parts = _Parts(problem)
        self._work: dict[tuple[_Part, str], list[Term]] = {}
        for id_, costs in self._costs.items():
            self._follows(id_, [])
            for part in self._parts.of(id_):
                for memory, variable in self._is_in[id_].items():
                    self._busy(part, [memory], (variable, costs[memory]))
        for tensor in problem.tensors:
            self._tensor(tensor)
        for (part, _), terms in self._work.items():
            self.row(
                [(self._end[part[1]], 1.0), (self._ready[part[0]], -1.0), *_negative(terms)],
                0.0,
                np.inf,
            )

    def division(self, values: np.ndarray) -> dict[SubgraphId, str]:
        """Where sub-graphs compute by the `values` of all variables."""
        return {
            id_: max(self._is_in[id_].items(), key=lambda place: float(values[place[1]]))[0]
            for id_ in self._costs
        }

    def _memories(self, memories: Iterable[str]) -> dict[str, int]:
        """One variable for each memory, of which one is 1."""
        found = {memory: self.variables([0.0], integral=True) for memory in memories}
        self.row([(variable, 1.0) for variable in found.values()], 1.0, 1.0)
        return found

    def _follows(self, id_: SubgraphId | None, terms: Sequence[Term]) -> None:
        """A sub-graph ends when it has computed, behind what `terms` say."""
        costs = self._costs[id_] if id_ is not None else {}
        computing = [(self._is_in[id_][memory], us) for memory, us in costs.items()]
        self.row([(self._end[id_], 1.0), *_negative([*terms, *computing])], 0.0, np.inf)

    def _tensor(self, tensor: Tensor) -> None:
        """What reads a tensor follows what makes it, behind a copy that all who want it there share."""
        copying = {pair: us / self._horizon_us for pair, us in tensor.copy_us.items()}
        copies: dict[tuple[_Part, tuple[str, str]], int] = {}
        for use in tensor.uses:
            crossing = self._crossing(tensor.producer, use.consumer)
            waiting = [(variable, copying[pair]) for pair, variable in crossing.items()]
            self._follows(use.consumer, [(self._ready[tensor.producer], 1.0), *waiting])
            for part in self._parts.of_copy(tensor.producer, use.consumer):
                for pair, variable in crossing.items():
                    where = (part, pair)
                    if where not in copies:
                        copies[where] = self.variables([0.0])
                        self._busy(part, (HOST, *pair), (copies[where], copying[pair]))
                    self.row([(copies[where], 1.0), (variable, -1.0)], 0.0, np.inf)

    def _crossing(
        self, producer: SubgraphId | None, consumer: SubgraphId | None
    ) -> dict[tuple[str, str], int]:
        """A variable for each two memories that are not the same: whether the two compute there."""
        made, taken = self._is_in[producer], self._is_in[consumer]
        both = {pair: self.variables([0.0]) for pair in itertools.product(made, taken)}
        for source, variable in made.items():
            self.row([(variable, -1.0), *((both[source, m], 1.0) for m in taken)], 0.0, 0.0)
        for memory, variable in taken.items():
            self.row([(variable, -1.0), *((both[m, memory], 1.0) for m in made)], 0.0, 0.0)
        return {pair: variable for pair, variable in both.items() if pair[0] != pair[1]}

    def _busy(self, part: _Part, memories: Iterable[str], term: Term) -> None:
        for memory in dict.fromkeys(memories):
            self._work.setdefault((part, memory), []).append(term)


_Part = tuple[SubgraphId | None, SubgraphId | None]
"""Of a network: from the end of one sub-graph to that of another. None is where it begins, or ends."""
_WHOLE: _Part = (None, None)


class _Parts:
    """What lies between the waists of a network: sub-graphs that all others come before, or behind."""

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
        """In which a sub-graph computes."""
        return _with_whole(self._of[id_])

    def of_copy(
        self, producer: SubgraphId | None, consumer: SubgraphId | None
    ) -> tuple[_Part, ...]:
        """In which a tensor is copied between the two, for certain."""
        part = self._last if consumer is None else self._of[consumer]
        begins = part[0] == producer
        is_within = begins or (producer is not None and self._of[producer] == part)
        return _with_whole(part) if is_within else (_WHOLE,)


def _with_whole(part: _Part) -> tuple[_Part, ...]:
    return (_WHOLE,) if part == _WHOLE else (_WHOLE, part)


def _negative(terms: Iterable[Term]) -> list[Term]:
    return [(variable, -factor) for variable, factor in terms]


def _cheapest(options: Sequence[Option]) -> dict[str, float]:
    costs: dict[str, float] = {}
    for option in options:
        costs[option.memory] = min(option.cost_us, costs.get(option.memory, np.inf))
    return costs
