"""Plans whose devices work while the host does: the makespan of a list schedule, and a lower bound on it.

The host's thread makes all calls, in one order. What it computes itself it waits for. A device takes its kernels and computes
them in that order, while the host goes on; only where a tensor is copied between the two, each waits for the other. So an order
of calls is a schedule. :func:`schedule` finds one by list scheduling: of the calls that can be made, a device's come first, as
the host goes on at once; then that which can start first; of several such, that with the longest path behind it (Graham,
"Bounds on multiprocessing timing anomalies", 1969; HEFT's ranks, Topcuoglu et al., 2002).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy.optimize import linprog

from layoutsel.planning.problem import (
    HOST,
    KINDS,
    OUTSIDE,
    Node,
    Option,
    Place,
    PlanningProblem,
    Tensor,
    is_boundary,
    source_places,
)
from tvm_passes.decision import Decision, SubgraphId


@dataclass(frozen=True, kw_only=True)
class Span:
    """When something is done."""

    name: str
    """A sub-graph's id; of a boundary, its tensor and kind."""
    places: tuple[str, ...]
    """The memories whose processors are busy with it; with a copy both are."""
    start_us: float
    end_us: float


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """When everything that a plan does is done, as predicted."""

    order: tuple[SubgraphId, ...]
    """In which the host calls sub-graphs."""
    spans: tuple[Span, ...]

    @property
    def makespan_us(self) -> float:
        """From the first call to the last result."""
        return max((span.end_us for span in self.spans), default=0.0)


@dataclass(frozen=True, kw_only=True)
class Makespan:
    """What a plan takes whose devices work while the host does, as plans keep it."""

    us: float
    """Predicted time from the first call to the last result, microseconds."""
    bound_us: float
    """No schedule of any plan of the problem is shorter, microseconds."""
    order: tuple[SubgraphId, ...]
    """In which the host calls the sub-graphs."""

    @property
    def gap(self) -> float:
        """Relative gap between makespan and bound."""
        return max(self.us - self.bound_us, 0.0) / max(self.us, 1e-9)

    @classmethod
    def of(cls, found: Schedule, bound_us: float) -> Makespan:
        """That of a schedule."""
        us = found.makespan_us
        return cls(us=us, bound_us=min(bound_us, us), order=found.order)


@dataclass
class _Task:
    """A call that the host makes, before it has a time."""

    name: str
    places: tuple[str, ...]
    us: float
    needs: list[int] = field(default_factory=list)
    """Numbers of the tasks before it."""
    subgraph: SubgraphId | None = None
    rank_us: float = 0.0
    """The longest path from its start to the end."""


def schedule(problem: PlanningProblem, decisions: Mapping[SubgraphId, Decision]) -> Schedule:
    """The list schedule of `decisions`."""
    tasks = _Tasks(problem, decisions).tasks
    readers: list[list[int]] = [[] for _ in tasks]
    for number, task in enumerate(tasks):
        for need in task.needs:
            readers[need].append(number)
    for number in reversed(range(len(tasks))):
        behind = max((tasks[reader].rank_us for reader in readers[number]), default=0.0)
        tasks[number].rank_us = tasks[number].us + behind
    left = [len(task.needs) for task in tasks]
    ready = {number for number, count in enumerate(left) if count == 0}
    free_us: dict[str, float] = {HOST: 0.0}
    order: list[SubgraphId] = []
    spans: list[Span] = []
    while ready:
        number = min(ready, key=lambda n: (*_urgency(tasks[n], free_us), n))
        task = tasks[number]
        start_us = _start(task, free_us)
        for place in task.places:
            free_us[place] = start_us + task.us
        end_us = start_us + task.us
        spans.append(Span(name=task.name, places=task.places, start_us=start_us, end_us=end_us))
        if task.subgraph is not None:
            order.append(task.subgraph)
        ready.remove(number)
        for reader in readers[number]:
            left[reader] -= 1
            if left[reader] == 0:
                ready.add(reader)
    return Schedule(order=tuple(order), spans=tuple(spans))


def _urgency(task: _Task, free_us: Mapping[str, float]) -> tuple[bool, float, float]:
    """By what the next call is chosen: the least first."""
    return HOST in task.places, _start(task, free_us), -task.rank_us


def _start(task: _Task, free_us: Mapping[str, float]) -> float:
    """When a task starts that is called next: its processors are free, and the host has come to call it.

    Its inputs are there by then: what its processor reads, the same one has made, or a copy has brought.
    """
    return max(free_us[HOST], *(free_us.get(place, 0.0) for place in task.places))


class _Tasks:
    """A plan's calls in a topological order: sub-graphs, and the boundaries between them."""

    def __init__(self, problem: PlanningProblem, decisions: Mapping[SubgraphId, Decision]) -> None:
        self.tasks: list[_Task] = []
        self.chosen = {node.id: node.option(decisions[node.id]) for node in problem.nodes}
        self.made: dict[tuple[SubgraphId | None, int], list[Tensor]] = {}
        self.arrived: dict[tuple[str, Place], list[int]] = {}
        """By a tensor's name and where it is wanted, the tasks that bring it there."""
        for tensor in problem.tensors:
            self.made.setdefault((tensor.producer, tensor.output_index), []).append(tensor)
        self.reads = _reads(problem)
        for tensor in self._made_by(None):
            self._leave(tensor, OUTSIDE, None)
        for node in problem.nodes:
            self._compute(node)

    def _made_by(self, producer: SubgraphId | None) -> Iterator[Tensor]:
        for (maker, _), tensors in self.made.items():
            if maker == producer:
                yield from tensors

    def _add(self, name: str, places: Sequence[str], us: float, needs: Sequence[int]) -> int:
        self.tasks.append(_Task(name, tuple(dict.fromkeys(places)), us, sorted(set(needs))))
        return len(self.tasks) - 1

    def _compute(self, node: Node) -> None:
        option = self.chosen[node.id]
        needs = [
            number
            for tensor, index in self.reads[node.id]
            for number in self.arrived[tensor.name, option.wanted[index]]
        ]
        number = self._add(node.id, [option.memory], option.cost_us, needs)
        self.tasks[number].subgraph = node.id
        for tensor in self._made_by(node.id):
            self._leave(tensor, option.made[tensor.output_index], number)

    def _leave(self, tensor: Tensor, source: Place, made: int | None) -> None:
        """Add the boundaries of a tensor: each once for all that want the same.

        The host transforms whatever does not stay on one device: before a copy to a device, behind one to the host.
        """
        done: dict[tuple[str, ...], int] = {}
        for wanted in dict.fromkeys(self._wanted(tensor)):
            path = [] if made is None else [made]
            for kind in _steps(source, wanted):
                if not is_boundary(kind, source, wanted):
                    continue
                key: tuple[str, ...] = (kind, KINDS[kind](wanted))
                if kind == "copy" and wanted.memory != HOST:
                    key = (*key, wanted.layout)
                if key not in done:
                    us = tensor.price(kind, source, wanted)
                    places = _busy(kind, source, wanted)
                    done[key] = self._add(f"{tensor.name} {kind}", places, us, path[-1:])
                path.append(done[key])
            self.arrived[tensor.name, wanted] = path

    def _wanted(self, tensor: Tensor) -> Iterator[Place]:
        for use in tensor.uses:
            if use.consumer is None:
                yield OUTSIDE
            else:
                yield self.chosen[use.consumer].wanted[use.input_index]


def _steps(source: Place, wanted: Place) -> Sequence[str]:
    """In which order boundaries follow each other."""
    if source.memory != HOST and wanted.memory == HOST:
        return ("copy", "transform", "crossing")
    return ("transform", "copy", "crossing")


def _busy(kind: str, source: Place, wanted: Place) -> Sequence[str]:
    """Whose processors a boundary keeps busy: the host transforms between devices, and waits for the first of them."""
    if kind == "copy":
        return (source.memory, wanted.memory)
    if source.memory == wanted.memory:
        return (source.memory,)
    return (HOST,) if HOST in (source.memory, wanted.memory) else (HOST, source.memory)


def _reads(problem: PlanningProblem) -> dict[SubgraphId, list[tuple[Tensor, int]]]:
    """The tensors that each sub-graph reads, with the number of the activation."""
    reads: dict[SubgraphId, list[tuple[Tensor, int]]] = {node.id: [] for node in problem.nodes}
    for tensor in problem.tensors:
        for use in tensor.uses:
            if use.consumer is not None:
                reads[use.consumer].append((tensor, use.input_index))
    return reads


def lower_bound(problem: PlanningProblem) -> float:
    """No schedule of any decisions is shorter, microseconds: the longest path, and the work of all processors."""
    return max(_path_bound(problem), _work_bound(problem))


def _path_bound(problem: PlanningProblem) -> float:
    """The longest chain of sub-graphs and boundaries, where every consumer may have its producers as it likes them."""
    reads = _reads(problem)
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


def _work_bound(problem: PlanningProblem) -> float:
    """Least time of the busiest processor, where sub-graphs may be cut into parts and boundaries are free.

    A linear programme: minimise t, where x[n, m] of sub-graph n runs in memory m, at its cheapest there.
    """
    cheapest = [_cheapest(node.options) for node in problem.nodes]
    memories = sorted({memory for costs in cheapest for memory in costs})
    pairs = [(n, memory) for n, costs in enumerate(cheapest) for memory in costs]
    work = np.zeros((len(memories), len(pairs) + 1))
    whole = np.zeros((len(cheapest), len(pairs) + 1))
    for column, (n, memory) in enumerate(pairs):
        work[memories.index(memory), column] = cheapest[n][memory]
        whole[n, column] = 1.0
    work[:, -1] = -1.0
    objective = np.zeros(len(pairs) + 1)
    objective[-1] = 1.0
    found = linprog(
        objective, A_ub=work, b_ub=np.zeros(len(memories)), A_eq=whole, b_eq=np.ones(len(cheapest))
    )
    return float(found.fun) if found.success else 0.0


def _cheapest(options: Sequence[Option]) -> dict[str, float]:
    costs: dict[str, float] = {}
    for option in options:
        costs[option.memory] = min(option.cost_us, costs.get(option.memory, np.inf))
    return costs


def memories_of(problem: PlanningProblem) -> tuple[str, ...]:
    """The memories that candidates compute in, the host's first where it is one."""
    found = {option.memory for node in problem.nodes for option in node.options}
    return tuple(sorted(found, key=lambda memory: (memory != HOST, memory)))
