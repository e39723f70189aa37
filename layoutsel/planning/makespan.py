"""Plans whose devices work while the host does: the makespan of a list schedule, and a lower bound on it.

The host's thread makes all calls, in one order. What it computes itself it waits for. A device takes its kernels and computes
them in that order, while the host goes on; only where a tensor is copied between the two, each waits for the other. So an order
of calls is a schedule: what brings a sub-graph's inputs is done directly before the first call that reads them.
:func:`schedule` finds an order by list scheduling: of the calls that can be made, those that leave the host free come first; then
that which can start first; of several such, that with the longest path behind it (Graham, "Bounds on multiprocessing timing
anomalies", 1969; HEFT's ranks, Topcuoglu et al., 2002).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from layoutsel.planning.problem import (
    HOST,
    KINDS,
    OUTSIDE,
    Option,
    Place,
    PlanningProblem,
    Tensor,
    is_boundary,
)
from tvm_passes.decision import Decision, SubgraphId

_ROUNDING = 1e-9
"""Of sums in different orders."""


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
        assert bound_us <= us * (1 + _ROUNDING), f"{bound_us} us is no lower bound on {us} us"
        return cls(us=us, bound_us=min(bound_us, us), order=found.order)


@dataclass(frozen=True)
class _Boundary:
    """A transform, hand-over or copy that somebody wants."""

    name: str
    places: tuple[str, ...]
    us: float
    to_device: bool
    """Whether it is a copy to a device, which comes directly before the call that reads it."""


@dataclass(frozen=True)
class _Call:
    """A call that the host makes: a sub-graph, behind whatever brings its inputs and has not been done before."""

    id: SubgraphId | None
    """None for handing over the results."""
    memory: str
    us: float
    needs: tuple[SubgraphId, ...]
    """The sub-graphs whose results it reads."""
    brings: tuple[_Boundary, ...]
    """In the order in which they are done."""

    def steps(self, done: Collection[_Boundary]) -> Iterator[tuple[str, tuple[str, ...], float]]:
        """Name, busy processors and time of everything that is to be done, in order."""
        for boundary in self.brings:
            if boundary not in done:
                yield boundary.name, boundary.places, boundary.us
        if self.id is not None:
            yield self.id, (self.memory,), self.us


class _Clock:
    """When each processor is free."""

    def __init__(self, free_us: Mapping[str, float] | None = None) -> None:
        self.free_us = dict(free_us or {HOST: 0.0})

    def start(self, places: Sequence[str]) -> float:
        """When what is called next begins: its processors are free, and the host has come to call it.

        Its inputs are there by then: what its processor reads, the same one has made, or a copy has brought.
        """
        return max(self.free_us[HOST], *(self.free_us.get(place, 0.0) for place in places))

    def do(self, places: Sequence[str], us: float) -> tuple[float, float]:
        """Start and end of something that is called now."""
        start_us = self.start(places)
        for place in places:
            self.free_us[place] = start_us + us
        return start_us, start_us + us


def schedule(problem: PlanningProblem, decisions: Mapping[SubgraphId, Decision]) -> Schedule:
    """The shorter of two list schedules of `decisions`: devices get their inputs as soon as they can, or as it comes."""
    return Scheduler(problem).schedule(decisions)


class Scheduler:
    """Makes schedules of many plans of a problem: calls that they have in common are worked out once."""

    def __init__(self, problem: PlanningProblem) -> None:
        self._options = {(n.id, o.decision): o for n in problem.nodes for o in n.options}
        self._reads: dict[SubgraphId | None, list[tuple[Tensor, int]]] = dict(
            reads_of(problem).items()
        )
        self._reads[None] = [
            (tensor, 0)
            for tensor in problem.tensors
            if any(use.consumer is None for use in tensor.uses)
        ]
        self._known: dict[tuple[SubgraphId | None, tuple[Decision, ...]], _Call] = {}

    def schedule(self, decisions: Mapping[SubgraphId, Decision]) -> Schedule:
        """As of :func:`schedule`."""
        calls = [self._call(id_, decisions) for id_ in self._reads]
        found = [_listed(calls, are_fed_first=choice) for choice in (True, False)]
        return min(found, key=lambda one: one.makespan_us)

    def _call(self, id_: SubgraphId | None, decisions: Mapping[SubgraphId, Decision]) -> _Call:
        """A sub-graph's call; what it takes depends on who makes what it reads. The results are handed over last."""
        reads = self._reads[id_]
        makers = [tensor.producer for tensor, _ in reads if tensor.producer is not None]
        concerned = tuple(decisions[one] for one in (*([id_] if id_ is not None else ()), *makers))
        if (id_, concerned) not in self._known:
            chosen = {maker: self._options[maker, decisions[maker]] for maker in makers}
            self._known[id_, concerned] = self._worked_out(id_, decisions, chosen)
        return self._known[id_, concerned]

    def _worked_out(
        self,
        id_: SubgraphId | None,
        decisions: Mapping[SubgraphId, Decision],
        chosen: Mapping[SubgraphId, Option],
    ) -> _Call:
        reads = self._reads[id_]
        if id_ is None:
            return _call(None, HOST, 0.0, [(tensor, OUTSIDE) for tensor, _ in reads], chosen)
        option = self._options[id_, decisions[id_]]
        wanted = [(tensor, option.wanted[index]) for tensor, index in reads]
        return _call(id_, option.memory, option.cost_us, wanted, chosen)


def _listed(all_calls: Sequence[_Call], *, are_fed_first: bool) -> Schedule:
    *calls, results = all_calls
    ranks = _ranks(all_calls)
    left = {call.id: len(call.needs) for call in calls}
    readers: dict[SubgraphId, list[_Call]] = {}
    for call in calls:
        for need in call.needs:
            readers.setdefault(need, []).append(call)
    clock, done = _Clock(), set[_Boundary]()
    order: list[SubgraphId] = []
    spans: list[Span] = []

    def make(call: _Call) -> None:
        for name, places, us in call.steps(done):
            start_us, end_us = clock.do(places, us)
            spans.append(Span(name=name, places=places, start_us=start_us, end_us=end_us))
        done.update(call.brings)

    ready = [call for call in calls if not call.needs]
    while ready:
        call = ready[0]
        if len(ready) > 1:
            call = min(
                ready,
                key=lambda call: (
                    are_fed_first and call.memory == HOST,
                    *_urgency(call, done, clock),
                    -ranks[call.id],
                ),
            )
        make(call)
        assert call.id is not None, "the results come last"
        order.append(call.id)
        ready.remove(call)
        for reader in readers.get(call.id, ()):
            left[reader.id] -= 1
            if left[reader.id] == 0:
                ready.append(reader)
    make(results)
    return Schedule(order=tuple(order), spans=tuple(spans))


def _urgency(call: _Call, done: Collection[_Boundary], clock: _Clock) -> tuple[bool, float]:
    """By what the next call is chosen, the least first: whether the host has to do with it, and when it begins."""
    steps = list(call.steps(done))
    return any(HOST in places for _, places, _ in steps), clock.start(steps[0][1])


def _ranks(calls: Sequence[_Call]) -> dict[SubgraphId | None, float]:
    """The longest path from each call to the end, what it brings included, microseconds."""
    ranks: dict[SubgraphId | None, float] = {}
    behind: dict[SubgraphId, float] = {}
    for call in reversed(calls):
        own_us = call.us + sum(boundary.us for boundary in call.brings)
        ranks[call.id] = own_us + (behind.get(call.id, 0.0) if call.id is not None else 0.0)
        for need in call.needs:
            behind[need] = max(behind.get(need, 0.0), ranks[call.id])
    return ranks


def _call(
    id_: SubgraphId | None,
    memory: str,
    us: float,
    wanted: Sequence[tuple[Tensor, Place]],
    chosen: Mapping[SubgraphId, Option],
) -> _Call:
    brings = [
        boundary for tensor, place in wanted for boundary in _boundaries(tensor, place, chosen)
    ]
    brings.sort(key=lambda boundary: boundary.to_device)
    needs = [tensor.producer for tensor, _ in wanted if tensor.producer is not None]
    return _Call(id_, memory, us, tuple(dict.fromkeys(needs)), tuple(dict.fromkeys(brings)))


def _boundaries(
    tensor: Tensor, wanted: Place, chosen: Mapping[SubgraphId, Option]
) -> Iterator[_Boundary]:
    """What brings a tensor where it is wanted; equal ones are done once.

    The host transforms whatever does not stay on one device: before a copy to a device, behind one to the host.
    """
    source = OUTSIDE
    if tensor.producer is not None:
        source = chosen[tensor.producer].made[tensor.output_index]
    for kind in _steps(source, wanted):
        if is_boundary(kind, source, wanted):
            to_device = kind == "copy" and wanted.memory != HOST
            what = f"{KINDS[kind](wanted)}{f' in {wanted.layout}' if to_device else ''}"
            places = tuple(dict.fromkeys(_busy(kind, source, wanted)))
            us = tensor.price(kind, source, wanted)
            yield _Boundary(f"{tensor.name} {kind} to {what}", places, us, to_device)


def _steps(source: Place, wanted: Place) -> Sequence[str]:
    """In which order boundaries follow each other."""
    if source.memory != HOST and wanted.memory == HOST:
        return ("copy", "transform", "crossing")
    return ("transform", "copy", "crossing")


def _busy(kind: str, source: Place, wanted: Place) -> Sequence[str]:
    """Whose processors a boundary keeps busy: the host makes copies, also between devices, and transforms between them."""
    if kind == "copy":
        return (HOST, source.memory, wanted.memory)
    if source.memory == wanted.memory:
        return (source.memory,)
    return (HOST,) if HOST in (source.memory, wanted.memory) else (HOST, source.memory)


def reads_of(problem: PlanningProblem) -> dict[SubgraphId, list[tuple[Tensor, int]]]:
    """The tensors that each sub-graph reads, with the number of the activation."""
    reads: dict[SubgraphId, list[tuple[Tensor, int]]] = {node.id: [] for node in problem.nodes}
    for tensor in problem.tensors:
        for use in tensor.uses:
            if use.consumer is not None:
                reads[use.consumer].append((tensor, use.input_index))
    return reads


def memories_of(problem: PlanningProblem) -> tuple[str, ...]:
    """The memories that candidates compute in, the host's first where it is one."""
    found = {option.memory for node in problem.nodes for option in node.options}
    return tuple(sorted(found, key=lambda memory: (memory != HOST, memory)))
